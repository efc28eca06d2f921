/* The search: it allocates a great deal for each request, in every way that C has, and gives all of it back. */
#include "service.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 256, SHOWN = 10 };

struct word {
    struct word *next; /* in its bucket */
    size_t count;
    char text[]; /* NUL-terminated */
};

static size_t bucket_of(const char *text, size_t length)
{
    size_t hash = 5381;
    for (size_t i = 0; i < length; i++)
        hash = hash * 33 + (unsigned char)text[i];
    return hash % BUCKETS;
}

static struct word *word_count(struct word **index, const char *text, size_t length)
{
    struct word **bucket = &index[bucket_of(text, length)];
    for (struct word *word = *bucket; word; word = word->next) {
        if (strncmp(word->text, text, length) == 0 && word->text[length] == '\0') {
            word->count++;
            return word;
        }
    }
    struct word *word = malloc(sizeof *word + length + 1);
    if (word) {
        word->next = *bucket;
        word->count = 1;
        memcpy(word->text, text, length);
        word->text[length] = '\0';
        *bucket = word;
    }
    return word;
}

static int by_count(const void *left, const void *right)
{
    const struct word *a = *(struct word *const *)left, *b = *(struct word *const *)right;
    return a->count != b->count ? (a->count < b->count) - (a->count > b->count) : strcmp(a->text, b->text);
}

/* Collects the words of the index into an array that grows as it goes, most frequent first. */
static struct word **words_ranked(struct word **index, size_t *count)
{
    struct word **ranked = NULL;
    *count = 0;
    for (size_t i = 0; i < BUCKETS; i++) {
        for (struct word *word = index[i]; word; word = word->next) {
            struct word **larger = realloc(ranked, (*count + 1) * sizeof *ranked);
            if (!larger) {
                free(ranked);
                return NULL;
            }
            ranked = larger;
            ranked[(*count)++] = word;
        }
    }
    if (ranked)
        qsort(ranked, *count, sizeof *ranked, by_count);
    return ranked;
}

int search_words(const char *text, size_t length, struct buffer *reply)
{
    struct word **index = calloc(BUCKETS, sizeof *index);
    if (!index)
        return -1;

    int result = 0;
    for (size_t i = 0; i < length && result == 0;) {
        size_t start = i;
        while (i < length && isalnum((unsigned char)text[i]))
            i++;
        if (i > start && !word_count(index, text + start, i - start))
            result = -1;
        i += i == start;
    }

    size_t count = 0;
    struct word **ranked = words_ranked(index, &count);
    for (size_t i = 0; ranked && i < count && i < SHOWN && result == 0; i++)
        result = buffer_printf(reply, "%zu %s\n", ranked[i]->count, ranked[i]->text);
    free(ranked);

    for (size_t i = 0; i < BUCKETS; i++) {
        for (struct word *word = index[i], *next; word; word = next) {
            next = word->next;
            free(word);
        }
    }
    free(index);
    return result;
}

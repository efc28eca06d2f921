/* Thumbnails, drawn on demand and kept in a cache that forgets the one that was not asked for longest. */
#include "service.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { CACHE_ENTRIES = 32, SIDE = 64, SCALE = 4, PIXEL = 3, THUMBNAIL_BYTES = SIDE * SIDE * PIXEL };

struct entry {
    uint32_t number;
    uint64_t last_used;
    unsigned char *pixels; /* THUMBNAIL_BYTES of them; NULL where the entry is empty */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct entry cache[CACHE_ENTRIES];
static uint64_t uses;

/* Fills the picture at full size: rings around a centre that depends on the number. */
static void image_draw(uint32_t number, unsigned char *full)
{
    const uint32_t side = SIDE * SCALE;
    for (uint32_t y = 0; y < side; y++) {
        for (uint32_t x = 0; x < side; x++) {
            uint32_t dx = x - number % side, dy = y - number * 7 % side;
            unsigned char *pixel = full + (size_t)(y * side + x) * PIXEL;
            pixel[0] = (unsigned char)((dx * dx + dy * dy) >> 6);
            pixel[1] = (unsigned char)(x ^ number);
            pixel[2] = (unsigned char)y;
        }
    }
}

/* Draws at full size and scales down. The caller frees the result. */
static unsigned char *image_render(uint32_t number)
{
    unsigned char *full = malloc((size_t)SIDE * SCALE * SIDE * SCALE * PIXEL);
    unsigned char *small = malloc(THUMBNAIL_BYTES);
    if (full && small) {
        image_draw(number, full);
        for (size_t y = 0; y < SIDE; y++)
            for (size_t x = 0; x < SIDE; x++)
                memcpy(small + (y * SIDE + x) * PIXEL, full + (y * SCALE * SIDE * SCALE + x * SCALE) * PIXEL, PIXEL);
    } else {
        free(small);
        small = NULL;
    }
    free(full);
    return small;
}

/* The entry that holds the number, or else the one to be replaced. The caller holds the lock. */
static struct entry *cache_find(uint32_t number)
{
    struct entry *oldest = &cache[0];
    for (struct entry *entry = cache; entry < cache + CACHE_ENTRIES; entry++) {
        if (entry->pixels && entry->number == number)
            return entry;
        if (entry->last_used < oldest->last_used)
            oldest = entry;
    }
    return oldest;
}

int image_thumbnail(uint32_t number, struct buffer *reply)
{
    int result = -1;

    pthread_mutex_lock(&lock);
    struct entry *entry = cache_find(number);
    if (!entry->pixels || entry->number != number) {
        free(entry->pixels);
        entry->number = number;
        entry->pixels = image_render(number);
    }
    entry->last_used = ++uses;
    if (entry->pixels && buffer_printf(reply, "P6 %d %d 255\n", SIDE, SIDE) == 0)
        result = buffer_append(reply, entry->pixels, THUMBNAIL_BYTES);
    pthread_mutex_unlock(&lock);
    return result;
}

void image_account(struct account *account)
{
    account->cached_blocks = 0;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < CACHE_ENTRIES; i++)
        account->cached_blocks += cache[i].pixels != NULL;
    pthread_mutex_unlock(&lock);
    account->cached_bytes = account->cached_blocks * THUMBNAIL_BYTES;
}

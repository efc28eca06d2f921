/* The parts of the demonstration service: a small web service with a session table, a thumbnail cache and a search.
 *
 * It exists to be looked at by heapscope. One path of it forgets memory, as real services do; see sessions.c. */
#ifndef SERVICE_H
#define SERVICE_H

#include <stddef.h>
#include <stdint.h>

/* Bytes that grow. An empty one is all zeros; `data` belongs to whoever holds the buffer. */
struct buffer {
    char *data;
    size_t length;
    size_t capacity;
};

/* Appends `length` bytes. Returns 0, or -1 when memory is short (the buffer is unchanged then). */
int buffer_append(struct buffer *buffer, const void *bytes, size_t length);
/* Appends formatted text. Returns as buffer_append does. */
int buffer_printf(struct buffer *buffer, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buffer_free(struct buffer *buffer);

/* What the service knows about its own memory, in bytes asked for (GET /stats). */
struct account {
    uint64_t leaked_blocks;
    uint64_t leaked_bytes;
    uint64_t cached_blocks;
    uint64_t cached_bytes;
};

/* Greets the visitor. `user` is the number in the session cookie, or 0 for a visitor without one. */
int session_greet(uint64_t user, struct buffer *reply);
void session_account(struct account *account);

/* Appends thumbnail `number` as a PPM picture, from the cache where it is there. */
int image_thumbnail(uint32_t number, struct buffer *reply);
void image_account(struct account *account);

/* Counts the words of `text` and appends the ten most frequent. Keeps nothing. */
int search_words(const char *text, size_t length, struct buffer *reply);

#endif

// What the ELF seeds are made of: a function that calls, one with a frame pointer, one inlined, and an allocator.
#include <alloca.h>
#include <stddef.h>

extern void *reserve(size_t size);

static inline int sum(const int *numbers, int count) {
    int total = 0;
    for (int i = 0; i < count; i++) total += numbers[i];
    return total;
}

int shelf(int count) {
    int *numbers = alloca(count * sizeof *numbers);
    for (int i = 0; i < count; i++) numbers[i] = (int)(size_t)reserve(i);
    return sum(numbers, count);
}

void *malloc(size_t size) { return size ? reserve(size) : NULL; }
void *calloc(size_t count, size_t size) { return malloc(count * size); }
void *realloc(void *block, size_t size) { return block ? reserve(size) : malloc(size); }
void free(void *block) { if (block) reserve((size_t)block); }

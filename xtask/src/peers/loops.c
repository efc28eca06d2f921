/* Pairs of malloc and free at the bottom of stacks of a given depth, in some threads at once.

       loops THREADS DEPTH SIZE PAIRS

   Prints "ready", works when a line comes, keeps 512 blocks of 8 KiB, prints "done", and ends with its input. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static int depth;
static size_t size;
static long pairs;
static void *kept[512];

__attribute__((noinline, noipa)) static void descend(int levels, long count, void **keep)
{
    if (levels > 0) {
        descend(levels - 1, count, keep);
        __asm__ volatile("" ::: "memory");
        return;
    }
    for (long pair = 0; pair < count; pair++) {
        void *block = malloc(keep ? 8192 : size);
        __asm__ volatile("" : "+r"(block) : : "memory");
        if (keep)
            keep[pair] = block;
        else
            free(block);
    }
}

static void *work(void *nothing)
{
    descend(depth, pairs, NULL);
    return nothing;
}

int main(int count, char **arguments)
{
    pthread_t others[64];
    char line[16];
    if (count < 5)
        return 2;
    int threads = atoi(arguments[1]);
    depth = atoi(arguments[2]), size = strtoul(arguments[3], NULL, 10), pairs = atol(arguments[4]);
    puts("ready");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin) || threads > 64)
        return 1;
    for (int i = 1; i < threads; i++)
        pthread_create(&others[i], NULL, work, NULL);
    work(NULL);
    for (int i = 1; i < threads; i++)
        pthread_join(others[i], NULL);
    puts("done");
    fflush(stdout);
    descend(depth, 512, kept);
    puts("kept");
    fflush(stdout);
    return fgets(line, sizeof line, stdin) != NULL;
}

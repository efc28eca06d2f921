/* The demonstration service's front: HTTP/1.1 on a loopback port, one request a connection, four threads.
 *
 *   GET /session   greets; with `Cookie: session=N` as user N
 *   GET /image/N   thumbnail N
 *   POST /search   the most frequent words of the body
 *   GET /stats     what the service forgot and what it caches, as JSON
 *
 * The port is chosen by the kernel and printed as `listening on 127.0.0.1:PORT`. */
#define _GNU_SOURCE /* memmem */
#include "service.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { WORKERS = 4, REQUEST_LIMIT = 64 * 1024, READ_BYTES = 2048, PATIENCE_SECONDS = 5 };

int buffer_append(struct buffer *buffer, const void *bytes, size_t length)
{
    size_t needed = buffer->length + length;
    if (needed > buffer->capacity) {
        size_t capacity = needed * 2;
        char *data = realloc(buffer->data, capacity);
        if (!data)
            return -1;
        buffer->data = data;
        buffer->capacity = capacity;
    }
    memcpy(buffer->data + buffer->length, bytes, length);
    buffer->length = needed;
    return 0;
}

int buffer_printf(struct buffer *buffer, const char *format, ...)
{
    char line[256];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (length < 0)
        return -1;
    return buffer_append(buffer, line, (size_t)length < sizeof line ? (size_t)length : sizeof line - 1);
}

void buffer_free(struct buffer *buffer)
{
    free(buffer->data);
    *buffer = (struct buffer){0};
}

/* The number behind `name` in the request's head, or `otherwise`. The head ends with a NUL. */
static uint64_t header_number(const char *head, const char *name, uint64_t otherwise)
{
    const char *found = strcasestr(head, name);
    return found ? strtoull(found + strlen(name), NULL, 10) : otherwise;
}

/* Reads head and body. The head's blank line becomes NULs. Returns the body, or NULL where the request is unusable. */
static const char *request_read(int connection, struct buffer *request, size_t *body_length)
{
    char bytes[READ_BYTES];
    size_t head_length = 0;

    while (!head_length || request->length < head_length + *body_length) {
        ssize_t got = recv(connection, bytes, sizeof bytes, 0);
        if (got <= 0 || request->length + (size_t)got > REQUEST_LIMIT ||
            buffer_append(request, bytes, (size_t)got) < 0)
            return NULL;
        char *blank = head_length ? NULL : memmem(request->data, request->length, "\r\n\r\n", 4);
        if (blank) {
            memset(blank, 0, 4);
            head_length = (size_t)(blank - request->data) + 4;
            *body_length = header_number(request->data, "\r\nContent-Length:", 0);
            if (*body_length > REQUEST_LIMIT)
                return NULL;
        }
    }
    return request->data + head_length;
}

static int stats(struct buffer *reply)
{
    struct account account = {0};
    session_account(&account);
    image_account(&account);
    return buffer_printf(reply,
                         "{\"leaked_blocks\": %llu, \"leaked_bytes\": %llu, "
                         "\"cached_blocks\": %llu, \"cached_bytes\": %llu}\n",
                         (unsigned long long)account.leaked_blocks, (unsigned long long)account.leaked_bytes,
                         (unsigned long long)account.cached_blocks, (unsigned long long)account.cached_bytes);
}

/* Answers into `reply` and returns the HTTP status. */
static int route(const char *head, const char *body, size_t body_length, struct buffer *reply)
{
    static const char image[] = "GET /image/";
    int result;

    if (strncmp(head, "GET /session ", 13) == 0)
        result = session_greet(header_number(head, "\r\nCookie: session=", 0), reply);
    else if (strncmp(head, image, sizeof image - 1) == 0)
        result = image_thumbnail((uint32_t)strtoul(head + sizeof image - 1, NULL, 10), reply);
    else if (strncmp(head, "POST /search ", 13) == 0)
        result = search_words(body, body_length, reply);
    else if (strncmp(head, "GET /stats ", 11) == 0)
        result = stats(reply);
    else
        return 404;
    return result == 0 ? 200 : 500;
}

static void send_all(int connection, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t sent = send(connection, bytes, length, MSG_NOSIGNAL);
        if (sent <= 0)
            return;
        bytes += sent;
        length -= (size_t)sent;
    }
}

static void serve(int connection)
{
    struct buffer request = {0}, reply = {0}, head = {0};
    size_t body_length = 0;

    const char *body = request_read(connection, &request, &body_length);
    int status = body ? route(request.data, body, body_length, &reply) : 400;
    if (buffer_printf(&head, "HTTP/1.1 %d %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n", status,
                      status == 200 ? "OK" : "Error", reply.length) == 0) {
        send_all(connection, head.data, head.length);
        send_all(connection, reply.data, reply.length);
    }
    buffer_free(&head);
    buffer_free(&reply);
    buffer_free(&request);
}

static void *worker(void *argument)
{
    const int listener = *(const int *)argument;
    const struct timeval patience = {.tv_sec = PATIENCE_SECONDS};

    for (;;) {
        int connection = accept(listener, NULL, NULL);
        if (connection < 0)
            continue;
        setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
        serve(connection);
        close(connection);
    }
    return NULL;
}

int main(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t address_length = sizeof address;
    pthread_t threads[WORKERS];

    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(listener, SOMAXCONN) < 0 || getsockname(listener, (struct sockaddr *)&address, &address_length) < 0) {
        perror("demo service: cannot listen on 127.0.0.1");
        return 1;
    }
    for (size_t i = 0; i < WORKERS; i++) {
        if (pthread_create(&threads[i], NULL, worker, &listener) != 0) {
            fputs("demo service: cannot start a thread\n", stderr);
            return 1;
        }
    }
    printf("listening on 127.0.0.1:%u\n", ntohs(address.sin_port));
    fflush(stdout);
    for (size_t i = 0; i < WORKERS; i++)
        pthread_join(threads[i], NULL);
    return 0;
}

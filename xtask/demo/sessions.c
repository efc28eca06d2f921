/* Sessions of visitors: known ones live in a table, guests only for one request.
 *
 * This file holds the leak that heapscope is asked to find. */
#include "service.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { TABLE_SLOTS = 32, HISTORY = 500 };

/* What the service remembers of a visitor's taste. */
struct profile {
    uint64_t visits;
    uint64_t history[HISTORY];
};

struct session {
    uint64_t user;
    struct profile *profile;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct session *table[TABLE_SLOTS];
static uint64_t guests_forgotten;

static int session_attach_profile(struct session *session)
{
    struct profile *profile = malloc(sizeof *profile);
    if (!profile)
        return -1;
    memset(profile, 0, sizeof *profile);
    session->profile = profile;
    return 0;
}

static struct session *session_open(uint64_t user)
{
    struct session *session = malloc(sizeof *session);
    if (!session)
        return NULL;
    session->user = user;
    if (session_attach_profile(session) < 0) {
        free(session);
        return NULL;
    }
    return session;
}

static void session_close(struct session *session)
{
    free(session->profile);
    free(session);
}

static int session_welcome(struct session *session, struct buffer *reply)
{
    struct profile *profile = session->profile;
    profile->history[profile->visits++ % HISTORY] = session->user;
    return buffer_printf(reply, "user %llu, visit %llu\n", (unsigned long long)session->user,
                         (unsigned long long)profile->visits);
}

/* A visitor with a cookie: the session stays in its slot of the table until another user needs the slot. */
static int greet_user(uint64_t user, struct buffer *reply)
{
    struct session **slot = &table[user % TABLE_SLOTS];
    int result = -1;

    pthread_mutex_lock(&lock);
    if (*slot && (*slot)->user != user) {
        session_close(*slot);
        *slot = NULL;
    }
    if (!*slot)
        *slot = session_open(user);
    if (*slot)
        result = session_welcome(*slot, reply);
    pthread_mutex_unlock(&lock);
    return result;
}

/* A visitor without a cookie: nobody will ask for the session again, so it ends here. */
static int greet_guest(struct buffer *reply)
{
    struct session *session = session_open(0);
    if (!session)
        return -1;
    int result = session_welcome(session, reply);
    free(session); /* The leak: this had to be session_close(), which frees the profile too. */

    pthread_mutex_lock(&lock);
    guests_forgotten++;
    pthread_mutex_unlock(&lock);
    return result;
}

int session_greet(uint64_t user, struct buffer *reply)
{
    return user ? greet_user(user, reply) : greet_guest(reply);
}

void session_account(struct account *account)
{
    pthread_mutex_lock(&lock);
    account->leaked_blocks = guests_forgotten;
    account->leaked_bytes = guests_forgotten * sizeof(struct profile);
    pthread_mutex_unlock(&lock);
}

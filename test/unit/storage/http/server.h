/*
 * server.h - a small HTTP server in a thread of the test, on the loopback, that does exactly what a script says.
 *
 * Two kinds: a script (steps in order, one connection at a time), or an echo server (any number of connections, answers 200 with
 * the request's body). Either speaks TLS when it is given a certificate.
 */
#ifndef LJ_TEST_HTTP_SERVER_H
#define LJ_TEST_HTTP_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    STEP_ACCEPT,    /* closes the connection there is, if any, and takes the next one */
    STEP_READ,      /* one whole request: head and, as its Content-Length says, body */
    STEP_READ_HEAD, /* up to the empty line, and nothing behind it */
    STEP_SEND,      /* text */
    STEP_FILL,      /* n bytes 'x' */
    STEP_SLEEP,     /* n ms */
    STEP_TRICKLE,   /* text, byte by byte, n ms before each */
    STEP_HOLD,  /* reads nothing and sends nothing until the client closes or n ms have passed */
    STEP_CLOSE, /* in good order */
    STEP_RESET, /* RST */
} step_kind;

typedef struct {
    step_kind kind;
    const char *text;
    unsigned n;
} server_step;

#define ACCEPT                                                                                     \
    {                                                                                              \
        STEP_ACCEPT, NULL, 0                                                                       \
    }
#define READ                                                                                       \
    {                                                                                              \
        STEP_READ, NULL, 0                                                                         \
    }
#define READ_HEAD                                                                                  \
    {                                                                                              \
        STEP_READ_HEAD, NULL, 0                                                                    \
    }
#define SEND(text)                                                                                 \
    {                                                                                              \
        STEP_SEND, (text), 0                                                                       \
    }
#define FILL(n)                                                                                    \
    {                                                                                              \
        STEP_FILL, NULL, (n)                                                                       \
    }
#define SLEEP(ms)                                                                                  \
    {                                                                                              \
        STEP_SLEEP, NULL, (ms)                                                                     \
    }
#define TRICKLE(text, ms)                                                                          \
    {                                                                                              \
        STEP_TRICKLE, (text), (ms)                                                                 \
    }
#define HOLD(ms)                                                                                   \
    {                                                                                              \
        STEP_HOLD, NULL, (ms)                                                                      \
    }
#define CLOSE                                                                                      \
    {                                                                                              \
        STEP_CLOSE, NULL, 0                                                                        \
    }
#define RESET                                                                                      \
    {                                                                                              \
        STEP_RESET, NULL, 0                                                                        \
    }

typedef struct http_server http_server;

/* The steps must outlive the server. Fails the test when it cannot. */
http_server *server_start_steps(const server_step *steps, size_t count);
#define server_start(steps) server_start_steps((steps), sizeof(steps) / sizeof((steps)[0]))
/* Every answer comes `delay_ms` after its request. */
http_server *server_start_echo(unsigned delay_ms);
/* An echo server that reads bodies slowly: `bytes_per_pause`, then a pause, through a small receive buffer; does not send them back. */
http_server *server_start_slow_reader(unsigned bytes_per_pause, unsigned pause_ms);
/* An echo server behind TLS, with a certificate for 127.0.0.1 by a CA of its own, whose file is server_ca_file(). */
http_server *server_start_echo_tls(void);
const char *server_ca_file(const http_server *server);

unsigned server_port(const http_server *server);
/* "http://127.0.0.1:PORT<path>"; valid until the next call. */
const char *server_url(http_server *server, const char *path);
unsigned server_accepted(const http_server *server);
/* All that was received so far. For scripts: to be read when the request is over. */
const char *server_received(http_server *server);
/* Ends the thread. Fails the test when a step of the script was not reached. */
void server_stop(http_server *server);
/* Ends it wherever it is. */
void server_abandon(http_server *server);

#endif

/* The load for bench_fanout.py: N IRC clients in one channel, S of them talking.

   usage: bench_load PORT N S SECONDS WINDOW RATE SIZE STUCK TLS

   RATE is messages a second over all senders; where it is 0, each sender has WINDOW messages
   in flight: it sends the next when all observers have read one of its messages. STUCK clients
   join and never read again. TLS is 1 to connect encrypted (certificates are not checked); it
   needs a build with -DTLS, -lssl and -lcrypto. Prints "talking" when all have joined, and at
   the end, in one line: clients registered, seconds that took, messages sent, deliveries a
   second, deliveries lost, seconds of talk, the median, 99th percentile and longest time of a
   delivery in ms, the number of clients that the server disconnected, and the seconds of CPU
   that this program itself has spent since "talking".

   One thread and epoll: it spends far less on a delivery than any server does. Lines are
   counted by their bytes, since all have the same length; latency is read off every line of
   the observers. They do not talk, and are spread evenly over the order of joining, so that
   neither the first nor the last client to be served sets the pace. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifdef TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#endif

#define OBSERVERS 4
#define MAX_SAMPLES 4000000
#define REGISTER_TIME 240.0

struct client {
    int fd, joined, stuck, closed, observer; /* observer: its number, or -1 */
    long sent;            /* messages of this sender */
    long read[OBSERVERS]; /* how many of them each observer has read */
    int held; /* bytes of an unfinished line in line[] */
    char line[1024];
    long bytes; /* received since the talk began */
    char *out;  /* what is still to be sent */
    int out_size;
#ifdef TLS
    SSL *ssl; /* NULL in the clear */
#endif
};

static struct client *clients, **senders;
static int n, s, epoll_fd, joined;
static double *samples;
static long sample_count, observed;
static int talking, line_size;
static char buffer[1 << 18];

static double read_clock(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static double now(void) {
    return read_clock(CLOCK_MONOTONIC);
}

#ifdef TLS
/* Speak TLS from now on. It reads from memory, into which a whole recv() goes at once, and writes
   to the socket. The first write begins the handshake. */
static void encrypt(struct client *c) {
    static SSL_CTX *context;
    if (!context) {
        context = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE);
        SSL_CTX_set_mode(context, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    }
    BIO *memory = BIO_new(BIO_s_mem());
    BIO_set_mem_eof_return(memory, -1); /* empty is not the end */
    c->ssl = SSL_new(context);
    SSL_set_bio(c->ssl, memory, BIO_new_socket(c->fd, BIO_NOCLOSE));
    SSL_set_connect_state(c->ssl);
}
#endif

static ssize_t write_some(struct client *c) {
#ifdef TLS
    if (c->ssl)
        return SSL_write(c->ssl, c->out, c->out_size);
#endif
    return send(c->fd, c->out, c->out_size, 0);
}

static void flush_client(struct client *c) {
    while (c->out_size && !c->closed) {
        ssize_t sent = write_some(c);
        if (sent <= 0)
            return;
        memmove(c->out, c->out + sent, c->out_size - sent);
        c->out_size -= sent;
    }
}

static void say(struct client *c, const char *text, int size) {
    if (c->out_size + size > 1 << 16)
        return;
    if (!c->out)
        c->out = malloc(1 << 16);
    memcpy(c->out + c->out_size, text, size);
    c->out_size += size;
    if (!talking)
        flush_client(c);
}

static int is_numeric(const char *line, const char *numeric) {
    const char *space = strchr(line, ' ');
    return space && !strncmp(space, numeric, strlen(numeric));
}

static void on_line(struct client *c, char *line, int size) {
    char reply[600];
    if (!strncmp(line, "PING", 4)) {
        int length = snprintf(reply, sizeof reply, "PONG%.*s\r\n", size - 4, line + 4);
        say(c, reply, length);
    } else if (!c->joined && (is_numeric(line, " 376 ") || is_numeric(line, " 422 "))) {
        say(c, "JOIN #bench\r\n", 13);
    } else if (!c->joined && is_numeric(line, " 366 ")) {
        c->joined = 1;
        joined++;
    } else if (talking) {
        char *mark = strstr(line, "@@");
        if (mark) {
            observed++;
            line_size = size + 2;
            if (sample_count < MAX_SAMPLES)
                samples[sample_count++] = now() - atof(mark + 2);
            int sender = atoi(strchr(mark, ' ') + 1);
            senders[sender]->read[c->observer]++;
        }
    }
}

static void on_text(struct client *c, char *start, ssize_t got) {
    char *end = start + got, *newline;
    c->bytes += got;
    if (talking && c->observer < 0)
        return;
    while ((newline = memchr(start, '\n', end - start))) {
        int size = newline - start;
        if (c->held + size < (int)sizeof c->line) {
            memcpy(c->line + c->held, start, size);
            c->line[c->held + size] = 0;
            size = c->held + size;
            if (size && c->line[size - 1] == '\r')
                c->line[--size] = 0;
            on_line(c, c->line, size);
        }
        c->held = 0;
        start = newline + 1;
    }
    if (c->held + (end - start) < (long)sizeof c->line) {
        memcpy(c->line + c->held, start, end - start);
        c->held += end - start;
    }
}

/* Read what came from the server; return 0 if the connection cannot go on. */
static int on_bytes(struct client *c, ssize_t got) {
#ifdef TLS
    if (c->ssl) {
        static char text[1 << 14]; /* the plain text of a record, at most */
        int size;
        ERR_clear_error(); /* of another client */
        BIO_write(SSL_get_rbio(c->ssl), buffer, got);
        while ((size = SSL_read(c->ssl, text, sizeof text)) > 0)
            on_text(c, text, size);
        int is_open = SSL_get_error(c->ssl, size) == SSL_ERROR_WANT_READ;
        if (!talking)
            flush_client(c); /* what waited for the handshake */
        return is_open;
    }
#endif
    on_text(c, buffer, got);
    return 1;
}

static void on_readable(struct client *c) {
    for (;;) {
        ssize_t got = recv(c->fd, buffer, sizeof buffer, 0);
        if (got < 0 && errno == EAGAIN)
            return;
        if (got <= 0 || !on_bytes(c, got)) {
            if (!c->closed) {
                c->closed = 1;
                epoll_ctl(epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
            }
            return;
        }
        if (got < (ssize_t)sizeof buffer)
            return;
    }
}

static void poll_once(int timeout_ms) {
    struct epoll_event events[1024];
    int count = epoll_wait(epoll_fd, events, 1024, timeout_ms);
    for (int i = 0; i < count; i++)
        on_readable(&clients[events[i].data.u32]);
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Choose the observers and, among the others, the senders: all but the stuck may be either. */
static void cast(int stuck) {
    for (int i = 0; i < n; i++)
        clients[i].observer = -1;
    for (int i = 0; i < OBSERVERS; i++) {
        clients[(n - stuck - 1) * i / (OBSERVERS - 1)].observer = i;
    }
    senders = calloc(s, sizeof *senders);
    for (int i = 0, at = 0; i < s; i++, at++) {
        while (clients[at].observer >= 0)
            at++;
        senders[i] = &clients[at];
    }
}

/* Return the messages of a sender that an observer has still to read. */
static long in_flight(struct client *sender) {
    long read = sender->sent;
    for (int i = 0; i < OBSERVERS; i++)
        if (sender->read[i] < read)
            read = sender->read[i];
    return sender->sent - read;
}

static void talk(int sender, int size) {
    static char text[600], filler[500];
    memset(filler, 'x', sizeof filler);
    int length = snprintf(text, sizeof text, "PRIVMSG #bench :@@%.6f %d ", now(), sender);
    int pad = size - (length - 16);
    memcpy(text + length, filler, pad > 0 ? pad : 0);
    length += pad > 0 ? pad : 0;
    memcpy(text + length, "\r\n", 2);
    senders[sender]->sent++;
    say(senders[sender], text, length + 2);
}

int main(int argc, char **argv) {
    if (argc != 10)
        return 2;
    int port = atoi(argv[1]), size = atoi(argv[7]), stuck = atoi(argv[8]);
    n = atoi(argv[2]), s = atoi(argv[3]);
    double seconds = atof(argv[4]), rate = atof(argv[6]);
    int window = atoi(argv[5]), encrypted = atoi(argv[9]);
    if (n < s + stuck + OBSERVERS)
        return 2;
#ifndef TLS
    if (encrypted)
        return 2;
#endif
    signal(SIGPIPE, SIG_IGN);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    clients = calloc(n, sizeof *clients);
    samples = malloc(sizeof *samples * MAX_SAMPLES);
    epoll_fd = epoll_create1(0);
    double start = now();
    for (int i = 0; i < n; i++) {
        struct client *c = &clients[i];
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
        /* One source address has ports for some 28,000 connections: enough. */
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        c->fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(c->fd, (struct sockaddr *)&address, sizeof address)) {
            c->closed = 1;
            continue;
        }
        int one = 1;
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
#ifdef TLS
        if (encrypted)
            encrypt(c);
#endif
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event);
        char hello[100];
        int length = snprintf(hello, sizeof hello, "NICK n%05d\r\nUSER u 0 * :u\r\n", i);
        say(c, hello, length);
        while (i - joined > 200 && now() - start < REGISTER_TIME) /* a crowd, not a flood */
            poll_once(1);
        poll_once(0);
    }
    while (joined < n && now() - start < REGISTER_TIME)
        poll_once(10);
    double registered = now() - start;
    int all = joined;
    for (double quiet = now() + 1.0; now() < quiet;) /* the joins have been told */
        poll_once(10);

    for (int i = 0; i < n; i++)
        clients[i].bytes = 0;
    for (int i = n - stuck; i < n; i++) {
        clients[i].stuck = 1;
        epoll_ctl(epoll_fd, EPOLL_CTL_DEL, clients[i].fd, NULL);
    }
    cast(stuck);
    talking = 1;
    printf("talking\n");
    fflush(stdout);
    long sent = 0;
    double begin = now(), cpu = read_clock(CLOCK_PROCESS_CPUTIME_ID), t;
    while ((t = now()) < begin + seconds) {
        if (rate > 0)
            for (long due = (long)((t - begin) * rate) - sent; due > 0; due--)
                talk(sent++ % s, size);
        else
            for (int i = 0; i < s; i++)
                for (; in_flight(senders[i]) < window; sent++)
                    talk(i, size);
        for (int i = 0; i < s; i++)
            flush_client(senders[i]);
        poll_once(1);
    }
    long bytes = 0, at_end = 0;
    for (int i = 0; i < n; i++)
        at_end += clients[i].bytes;
    double took = now() - begin;
    for (double last = now() + 10.0; observed < sent * OBSERVERS && now() < last;)
        poll_once(10);
    for (double quiet = now() + 0.3; now() < quiet;)
        poll_once(10);
    cpu = read_clock(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    int gone = 0;
    for (int i = 0; i < n; i++) {
        bytes += clients[i].bytes;
        gone += clients[i].closed && !clients[i].stuck;
    }
    long expected = sent * (n - stuck - 1); /* a sender gets its own back from nobody */
    long delivered = line_size ? bytes / line_size : 0;
    qsort(samples, sample_count, sizeof *samples, compare);
    double p50 = sample_count ? samples[sample_count / 2] : 0;
    double p99 = sample_count ? samples[sample_count * 99 / 100] : 0;
    double worst = sample_count ? samples[sample_count - 1] : 0;
    printf("%d %.2f %ld %.0f %ld %.2f %.2f %.2f %.2f %d %.3f\n", all, registered, sent,
           line_size ? at_end / line_size / took : 0.0, expected - delivered, took, p50 * 1e3,
           p99 * 1e3, worst * 1e3, gone, cpu);
    return 0;
}

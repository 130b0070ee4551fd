/* fan: N subscriber connections (WebSocket or SSE) that count every marker they receive.
 *
 * In:  options below; on standard input the commands `mark` and `quit` (end of input quits, too).
 * Out: one JSON object per line on standard output:
 *   {"event":"open", …}       once, when every connection is open or refused
 *   {"event":"caught_up", …}  once, with --expect K: when every connection has K different messages
 *   {"event":"mark", …}       per `mark`: counters since the start; latency and handshakes since the mark before
 *
 * Accounting is exact: a marker's sequence number must be the next of its stream on that connection. `gaps` counts the
 * numbers skipped, `backward` the messages whose number was not above the last (a duplicate, or out of order). So
 * received == publications × connections with gaps == backward == 0 means: all of it, once, in order.
 * Pings are answered like any WebSocket client does.
 */
#include "common.h"

#define READ_BYTES (256 * 1024)
#define CARRY_BYTES (128 * 1024)
#define MARKER_BYTES 64
#define MAX_HEADERS 8
#define STREAMS 2

enum { IDLE, CONNECTING, SHAKING, OPEN, CLOSED };

typedef struct {
    int fd;
    uint8_t state;
    uint32_t received;       /* different messages */
    int64_t next[STREAMS];   /* the sequence number each stream should bring next */
    int64_t started;
    char *carry;             /* bytes of an unfinished header, frame or marker; NULL when there are none */
    uint32_t carried;
} Connection;

static struct {
    int port, websocket, churn;
    long connections, opening;
    uint32_t expect;
    const char *path, *first, *headers[MAX_HEADERS + 1];
    char **tokens;
    long token_count;
} options = {.path = "/", .connections = 1, .opening = 200};

static Connection *connections;
static int poller;
static long started_connections, in_flight, opened, settled, refused, closed_early, caught_up;
static uint64_t received, gaps, backward, wire_bytes, pings;
static int64_t begun;
static Histogram latency, handshakes;
static char buffer[CARRY_BYTES + READ_BYTES + 1];

static void start_connection(Connection *c) {
    struct epoll_event event = {.events = EPOLLOUT, .data.u64 = (uint64_t)(c - connections)};
    c->fd = connecting_socket(options.port, started_connections++);
    c->state = CONNECTING;
    c->started = now_ns();
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event)) die("epoll_ctl: %s", strerror(errno));
    in_flight++;
}

static void drop_carry(Connection *c) {
    free(c->carry);
    c->carry = NULL;
    c->carried = 0;
}

static void report_open(void) {
    printf("{\"event\":\"open\",\"connections\":%ld,\"refused\":%ld,\"seconds\":%.4f,\"handshake_p50_ms\":%.3f,"
           "\"handshake_p99_ms\":%.3f}\n",
           opened, refused, (double)(now_ns() - begun) / 1e9, histogram_ms(&handshakes, .5), histogram_ms(&handshakes, .99));
}

static void end_connection(Connection *c) {
    int was = c->state;
    close(c->fd);
    drop_carry(c);
    c->state = CLOSED;
    if (was == OPEN) {
        if (!options.churn) closed_early++;
        return;
    }
    in_flight--;
    refused++;
    if (++settled == options.connections && !options.churn) report_open();
}

static void send_request(Connection *c) {
    static char request[16384];
    size_t length = 0;
    long index = c - connections;
    const char *token = options.token_count ? options.tokens[index % options.token_count] : "";
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)index};

    expand(request, sizeof request, &length, "GET ", 0, "", "");
    expand(request, sizeof request, &length, options.path, index, token, "");
    expand(request, sizeof request, &length, " HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n", options.port, "", "");
    expand(request, sizeof request, &length,
           options.websocket ? "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                               "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                             : "Accept: text/event-stream\r\n",
           0, "", "");
    for (const char **header = options.headers; *header; header++) {
        expand(request, sizeof request, &length, *header, index, token, "");
        expand(request, sizeof request, &length, "\r\n", 0, "", "");
    }
    expand(request, sizeof request, &length, "\r\n", 0, "", "");
    if (write(c->fd, request, length) != (ssize_t)length) {
        end_connection(c);
        return;
    }
    c->state = SHAKING;
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
}

/* Writes one client frame, masked with zeros. Small control and text frames only: they fit any socket buffer. */
static void send_frame(Connection *c, int opcode, const char *payload, size_t length) {
    char frame[4096 + 8];
    size_t at = 0;
    if (length > 4096) die("a first frame of more than 4096 bytes");
    frame[at++] = (char)(0x80 | opcode);
    if (length < 126) {
        frame[at++] = (char)(0x80 | length);
    } else {
        frame[at++] = (char)(0x80 | 126);
        frame[at++] = (char)(length >> 8);
        frame[at++] = (char)length;
    }
    memset(frame + at, 0, 4);
    memcpy(frame + at + 4, payload, length);
    if (write(c->fd, frame, at + 4 + length) < 0 && errno == EAGAIN) die("the server does not read");
}

static void count_message(Connection *c, unsigned stream, int64_t sequence, int64_t delay) {
    received++;
    histogram_add(&latency, delay);
    if (sequence < c->next[stream]) {
        backward++;
        return;
    }
    gaps += (uint64_t)(sequence - c->next[stream]);
    c->next[stream] = sequence + 1;
    if (++c->received == options.expect && ++caught_up == options.connections)
        printf("{\"event\":\"caught_up\",\"seconds\":%.4f}\n", (double)(now_ns() - begun) / 1e9);
}

/* Counts the markers of text[0…length). Returns where an unfinished marker begins, else `length`. */
static size_t scan(Connection *c, const char *text, size_t length, int64_t now) {
    const char *at = text, *end = text + length;
    while ((at = memchr(at, '^', (size_t)(end - at)))) {
        const char *stop = memchr(at, ';', (size_t)(end - at < MARKER_BYTES ? end - at : MARKER_BYTES));
        if (!stop) {
            if (end - at < MARKER_BYTES) return (size_t)(at - text);
            at++;
            continue;
        }
        char *after;
        unsigned stream = (unsigned)(at[1] - '0');
        int64_t sequence = stream < STREAMS ? strtoll(at + 3, &after, 10) : 0;
        if (stream < STREAMS && at[2] == ',' && *after == ',')
            count_message(c, stream, sequence, now - strtoll(after + 1, NULL, 10));
        at = stop;
    }
    return length;
}

/* Handles the whole frames in bytes[0…length) and returns how many bytes they were. */
static size_t read_frames(Connection *c, const char *bytes, size_t length, int64_t now) {
    size_t at = 0;
    while (length - at >= 2) {
        const unsigned char *head = (const unsigned char *)bytes + at;
        size_t header = 2, size = head[1] & 127;
        if (size == 126) {
            header = 4;
            if (length - at < header) break;
            size = (size_t)head[2] << 8 | head[3];
        } else if (size == 127) {
            header = 10;
            if (length - at < header) break;
            size = 0;
            for (int i = 2; i < 10; i++) size = size << 8 | head[i];
        }
        if (length - at < header + size) break;
        const char *payload = bytes + at + header;
        at += header + size;
        switch (head[0] & 15) {
        case 8: end_connection(c); return at;
        case 9: pings++; send_frame(c, 10, payload, size); break;
        default: scan(c, payload, size, now);
        }
    }
    return at;
}

/* Looks for the end of the response header. Returns the bytes consumed; the connection is open or ended afterwards. */
static size_t finish_handshake(Connection *c, char *bytes, size_t length) {
    char *end = memmem(bytes, length, "\r\n\r\n", 4);
    if (!end) return 0;
    if (length < 12 || memcmp(bytes + 9, options.websocket ? "101" : "200", 3)) {
        if (!refused) fprintf(stderr, "refused: %.*s\n", (int)(length < 400 ? length : 400), bytes);
        end_connection(c);
        return length;
    }
    c->state = OPEN;
    opened++;
    in_flight--;
    histogram_add(&handshakes, now_ns() - c->started);
    if (options.churn) {
        end_connection(c);
        return length;
    }
    if (options.first) {
        char text[4096];
        size_t size = 0;
        expand(text, sizeof text, &size, options.first, c - connections, "", "");
        send_frame(c, 1, text, size);
    }
    if (++settled == options.connections) report_open();
    return (size_t)(end - bytes) + 4;
}

static void readable(Connection *c) {
    if (c->carried) memcpy(buffer, c->carry, c->carried);
    ssize_t got = read(c->fd, buffer + c->carried, READ_BYTES);
    if (got <= 0) {
        if (got == 0 || errno != EAGAIN) end_connection(c);
        return;
    }
    size_t length = c->carried + (size_t)got, at = 0;
    wire_bytes += (uint64_t)got;
    buffer[length] = 0;
    if (c->state == SHAKING) at = finish_handshake(c, buffer, length);
    if (c->state == OPEN) {
        int64_t now = now_ns();
        at += (options.websocket ? read_frames : scan)(c, buffer + at, length - at, now);
    }
    if (c->state == CLOSED) return;
    size_t rest = length - at;
    if (rest > CARRY_BYTES) die("a frame or header of more than %d bytes", CARRY_BYTES);
    if (!rest && !c->carry) return;
    drop_carry(c);
    if (rest) {
        c->carry = malloc(rest);
        memcpy(c->carry, buffer + at, rest);
        c->carried = (uint32_t)rest;
    }
}

static void report_mark(void) {
    static int64_t last;
    int64_t now = now_ns();
    printf("{\"event\":\"mark\",\"seconds\":%.6f,\"received\":%llu,\"gaps\":%llu,\"backward\":%llu,\"bytes\":%llu,"
           "\"pings\":%llu,\"opened\":%ld,\"refused\":%ld,\"closed\":%ld,\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"max_ms\":%.3f,"
           "\"samples\":%llu,\"cpu_s\":%.3f}\n",
           last ? (double)(now - last) / 1e9 : 0, (unsigned long long)received, (unsigned long long)gaps,
           (unsigned long long)backward, (unsigned long long)wire_bytes, (unsigned long long)pings, opened, refused,
           closed_early, histogram_ms(&latency, .5), histogram_ms(&latency, .99), (double)latency.max / 1e6,
           (unsigned long long)latency.total, cpu_seconds());
    last = now;
    memset(&latency, 0, sizeof latency);
}

/* Takes what standard input has. Returns 0 when it is time to go. */
static int obey(void) {
    static char line[64];
    static size_t length;
    char bytes[256];
    ssize_t got = read(0, bytes, sizeof bytes);
    if (got <= 0) return got < 0 && errno == EAGAIN;
    for (ssize_t i = 0; i < got; i++) {
        if (bytes[i] != '\n') {
            if (length < sizeof line - 1) line[length++] = bytes[i];
            continue;
        }
        line[length] = 0;
        length = 0;
        if (!strcmp(line, "quit")) return 0;
        if (!strcmp(line, "mark")) report_mark();
    }
    return 1;
}

static void load_tokens(const char *file) {
    FILE *in = fopen(file, "r");
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    if (!in) die("%s: %s", file, strerror(errno));
    options.tokens = calloc((size_t)options.connections, sizeof *options.tokens);
    while (options.token_count < options.connections && (length = getline(&line, &room, in)) > 0) {
        line[strcspn(line, "\r\n")] = 0;
        options.tokens[options.token_count++] = strdup(line);
    }
    free(line);
    fclose(in);
    if (!options.token_count) die("%s has no token", file);
}

static void parse_options(int count, char **values) {
    static const struct option known[] = {
        {"port", 1, 0, 'p'},    {"mode", 1, 0, 'm'},    {"connections", 1, 0, 'n'}, {"path", 1, 0, 'a'},
        {"header", 1, 0, 'h'},  {"first", 1, 0, 'f'},   {"tokens", 1, 0, 't'},      {"opening", 1, 0, 'o'},
        {"expect", 1, 0, 'e'},  {"churn", 0, 0, 'c'},   {0, 0, 0, 0},
    };
    const char *token_file = NULL;
    int option, headers = 0;
    while ((option = getopt_long(count, values, "", known, NULL)) != -1) {
        switch (option) {
        case 'p': options.port = atoi(optarg); break;
        case 'm': options.websocket = !strcmp(optarg, "ws"); break;
        case 'n': options.connections = atol(optarg); break;
        case 'a': options.path = optarg; break;
        case 'h':
            if (headers == MAX_HEADERS) die("at most %d headers", MAX_HEADERS);
            options.headers[headers++] = optarg;
            break;
        case 'f': options.first = optarg; break;
        case 't': token_file = optarg; break;
        case 'o': options.opening = atol(optarg); break;
        case 'e': options.expect = (uint32_t)atol(optarg); break;
        case 'c': options.churn = 1; break;
        default:
            die("usage: fan --port P --mode ws|sse [--connections N] [--path T] [--header T]… [--first T] [--tokens FILE]\n"
                "           [--opening N at once] [--expect K messages each] [--churn]\n"
                "templates: %%d the connection's number, %%t its line of FILE");
        }
    }
    if (options.port <= 0 || options.connections <= 0) die("--port and --connections must be positive");
    if (token_file) load_tokens(token_file);
}

int main(int count, char **values) {
    struct epoll_event events[1024], commands = {.events = EPOLLIN, .data.u64 = UINT64_MAX};
    parse_options(count, values);
    setlinebuf(stdout);
    signal(SIGPIPE, SIG_IGN);
    raise_file_limit(options.connections + 64);
    poller = epoll_create1(EPOLL_CLOEXEC);
    connections = calloc((size_t)options.connections, sizeof *connections);
    fcntl(0, F_SETFL, fcntl(0, F_GETFL) | O_NONBLOCK);
    if (epoll_ctl(poller, EPOLL_CTL_ADD, 0, &commands)) die("standard input must be a pipe");
    begun = now_ns();
    for (long next = 0;;) {
        /* In churn, a connection that ended takes the next turn; otherwise each one is opened once. */
        for (long tried = 0; in_flight < options.opening && tried < options.connections; tried++) {
            if (!options.churn && next == options.connections) break;
            Connection *c = &connections[next++ % options.connections];
            if (c->state == IDLE || c->state == CLOSED) start_connection(c);
        }
        int ready = epoll_wait(poller, events, 1024, 1000);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.u64 == UINT64_MAX) {
                if (!obey()) return 0;
                continue;
            }
            Connection *c = &connections[events[i].data.u64];
            if (c->state == CONNECTING)
                send_request(c);
            else if (c->state != CLOSED)
                readable(c);
        }
    }
}

# What the load client asks of Linux: sockets, epoll, clocks. Thin names, no policy.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "<errno.h>" nogil:
    int errno
    enum:
        EAGAIN
        EINTR
        EINPROGRESS
        ECONNRESET
        ECONNREFUSED
        EPIPE
        ETIMEDOUT
        EADDRNOTAVAIL
        EMFILE
        ENFILE

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    cdef struct sockaddr:
        unsigned short sa_family
    int socket(int domain, int kind, int protocol)
    int bind(int fd, const sockaddr *address, socklen_t length)
    int connect(int fd, const sockaddr *address, socklen_t length)
    int setsockopt(int fd, int level, int name, const void *value, socklen_t length)
    int getsockopt(int fd, int level, int name, void *value, socklen_t *length)
    ssize_t recv(int fd, void *buffer, size_t length, int flags)
    ssize_t send(int fd, const void *buffer, size_t length, int flags)
    enum:
        AF_INET
        AF_INET6
        SOCK_STREAM
        SOCK_NONBLOCK
        SOCK_CLOEXEC
        SOL_SOCKET
        SO_ERROR
        SO_RCVBUF
        MSG_NOSIGNAL
        MSG_DONTWAIT

cdef extern from "<netinet/in.h>" nogil:
    enum:
        IPPROTO_IP
        IPPROTO_TCP
        IP_BIND_ADDRESS_NO_PORT

cdef extern from "<netinet/tcp.h>" nogil:
    enum:
        TCP_NODELAY

cdef extern from "<unistd.h>" nogil:
    int close(int fd)
    ssize_t read(int fd, void *buffer, size_t length)
    int getppid()

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        uint64_t u64
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int operation, int fd, epoll_event *event)
    int epoll_wait(int epfd, epoll_event *events, int capacity, int timeout_ms)
    enum:
        EPOLL_CTL_ADD
        EPOLL_CTL_MOD
        EPOLL_CLOEXEC
        EPOLLIN
        EPOLLOUT
        EPOLLERR
        EPOLLHUP
        EPOLLRDHUP
    uint32_t EPOLLET

cdef extern from "<time.h>" nogil:
    ctypedef long time_t
    cdef struct timespec:
        time_t tv_sec
        long tv_nsec
    cdef struct itimerspec:
        timespec it_interval
        timespec it_value
    int clock_gettime(int clock, timespec *now)
    enum:
        CLOCK_REALTIME
        CLOCK_MONOTONIC
        CLOCK_THREAD_CPUTIME_ID

cdef extern from "<sys/timerfd.h>" nogil:
    int timerfd_create(int clock, int flags)
    int timerfd_settime(int fd, int flags, const itimerspec *when, itimerspec *before)
    enum:
        TFD_NONBLOCK
        TFD_CLOEXEC
        TFD_TIMER_ABSTIME

cdef extern from *:
    """
    /* Counters have one writer (the loop) and readers in other threads and processes. */
    static inline uint64_t swarm_load(const uint64_t *at) {
        return __atomic_load_n(at, __ATOMIC_RELAXED);
    }
    static inline void swarm_store(uint64_t *at, uint64_t value) {
        __atomic_store_n(at, value, __ATOMIC_RELAXED);
    }
    static inline void swarm_add(uint64_t *at, uint64_t by) {
        __atomic_store_n(at, __atomic_load_n(at, __ATOMIC_RELAXED) + by, __ATOMIC_RELAXED);
    }
    static inline int swarm_top_bit(uint64_t value) {
        return 63 - __builtin_clzll(value);
    }
    """
    uint64_t swarm_load(const uint64_t *at) noexcept nogil
    void swarm_store(uint64_t *at, uint64_t value) noexcept nogil
    void swarm_add(uint64_t *at, uint64_t by) noexcept nogil
    int swarm_top_bit(uint64_t value) noexcept nogil


cdef inline uint64_t clock_us(int clock) noexcept nogil:
    cdef timespec now
    clock_gettime(clock, &now)
    return <uint64_t>now.tv_sec * 1000000 + <uint64_t>now.tv_nsec // 1000


cdef inline int pending_error(int fd) noexcept nogil:
    """The socket's stored error (and clears it), 0 when there is none."""
    cdef int error = 0
    cdef socklen_t length = sizeof(int)
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length)
    return error


cdef inline int set_option(int fd, int level, int name, int value) noexcept nogil:
    return setsockopt(fd, level, name, &value, sizeof(int))


cdef inline int open_socket(const sockaddr *source, socklen_t length, int family) noexcept nogil:
    """A nonblocking TCP socket bound to `source` (NULL: the kernel chooses), or -errno.

    The port is left to connect(): only then is it chosen per destination, so that one address
    carries the whole port range towards each (addr, port) and not once per machine.
    """
    cdef int error
    cdef int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if fd < 0:
        return -errno
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1)
    if source != NULL:
        set_option(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        if bind(fd, source, length) < 0:
            error = errno
            close(fd)
            return -error
    return fd

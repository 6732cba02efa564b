# Functions of the operating system and the compiler for the native headers: epoll, eventfd,
# sockets, threads, clocks and atomics. Frames and connections are unknown here.

from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from * nogil:
    """
    #ifndef FASTSSE_OS
    #define FASTSSE_OS
    #include <errno.h>
    #include <poll.h>
    #include <pthread.h>
    #include <signal.h>
    #include <stdint.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/epoll.h>
    #include <sys/eventfd.h>
    #include <sys/socket.h>
    #include <sys/uio.h>
    #include <time.h>
    #include <unistd.h>

    /* Ordering is in the name. Counters have one writer each, so BUMP is a plain read and a
       relaxed store: no locked instruction, and no torn read on the other side. */
    #define ATOMIC_LOAD(p) __atomic_load_n((p), __ATOMIC_SEQ_CST)
    #define ATOMIC_STORE(p, v) __atomic_store_n((p), (v), __ATOMIC_SEQ_CST)
    #define ATOMIC_SWAP(p, v) __atomic_exchange_n((p), (v), __ATOMIC_SEQ_CST)
    #define ATOMIC_CAS(p, old, v) \\
        __atomic_compare_exchange_n((p), &(old), (v), 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)
    /* For pointers of any type: compilers refuse to pass them as `void**`. */
    #define ATOMIC_CAS_POINTER(p, old, v) __extension__ ({ \\
        void* expected_ = (void*)(old); \\
        __atomic_compare_exchange_n( \\
            (void**)(p), &expected_, (void*)(v), 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); })
    #define ATOMIC_OR(p, v) __atomic_fetch_or((p), (v), __ATOMIC_SEQ_CST)
    #define ATOMIC_ADD(p, v) __atomic_add_fetch((p), (v), __ATOMIC_ACQ_REL)
    #define RELAXED_ADD(p, v) __atomic_add_fetch((p), (v), __ATOMIC_RELAXED)
    #define RELAXED_LOAD(p) __atomic_load_n((p), __ATOMIC_RELAXED)
    #define RELAXED_STORE(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
    #define BUMP(p, v) __atomic_store_n((p), *(p) + (v), __ATOMIC_RELAXED)
    #define PREFETCH(p) __builtin_prefetch((p))

    typedef void *(*fastsse_thread_main)(void *);

    static int fastsse_thread_start(pthread_t *thread, fastsse_thread_main entry, void *arg,
                                    const char *name) {
        /* The thread is born with every signal blocked: signals belong to the interpreter's
           main thread, and a handler here would run without a Python thread state. */
        sigset_t all, before;
        int failed;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        failed = pthread_create(thread, NULL, entry, arg);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (!failed) pthread_setname_np(*thread, name);
        return failed;
    }

    static uint64_t fastsse_monotonic_us(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
    }

    static uint64_t fastsse_wall_ms(void) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
    }

    static ssize_t fastsse_send(int fd, struct iovec *parts, size_t count) {
        struct msghdr message;
        if (count == 1)
            return send(fd, parts->iov_base, parts->iov_len, MSG_DONTWAIT | MSG_NOSIGNAL);
        memset(&message, 0, sizeof message);
        message.msg_iov = parts;
        message.msg_iovlen = count;
        return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    }

    static int fastsse_socket_error(int fd) {
        int error = 0;
        socklen_t size = sizeof error;
        return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) ? errno : error;
    }

    static int fastsse_is_writable(int fd) {
        struct pollfd one = {fd, POLLOUT, 0};
        return poll(&one, 1, 0) == 1 && (one.revents & POLLOUT);
    }

    static int fastsse_watch(int poller, int fd, uint64_t tag, uint32_t events) {
        struct epoll_event event;
        memset(&event, 0, sizeof event);
        event.events = events;
        event.data.u64 = tag;
        return epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    }

    static int fastsse_rewatch(int poller, int fd, uint64_t tag, uint32_t events) {
        struct epoll_event event;
        memset(&event, 0, sizeof event);
        event.events = events;
        event.data.u64 = tag;
        return epoll_ctl(poller, EPOLL_CTL_MOD, fd, &event);
    }

    static int fastsse_unwatch(int poller, int fd) {
        struct epoll_event none;
        return epoll_ctl(poller, EPOLL_CTL_DEL, fd, &none);
    }

    static void fastsse_out_of_memory(void) {
        /* Linux overcommits: malloc fails when the address space ends, not when memory does.
           No safe way remains to go on: a stream could have a silent gap. */
        static const char text[] = "fastsse: out of memory\\n";
        if (write(2, text, sizeof text - 1)) {}
        abort();
    }
    #endif
    """
    ctypedef struct pthread_t:
        pass
    ctypedef void* (*thread_main "fastsse_thread_main")(void*) noexcept nogil
    cdef struct iovec:
        void* iov_base
        size_t iov_len
    ctypedef union epoll_data_t:
        uint64_t u64
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    enum:
        EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLHUP, EPOLLERR, EPOLLET
        EPOLL_CLOEXEC, EFD_NONBLOCK, EFD_CLOEXEC, MSG_DONTWAIT
        EAGAIN, EINTR, EPIPE, ETIMEDOUT
        SHUT_WR
    int errno
    int epoll_create1(int flags)
    int epoll_wait(int poller, epoll_event* events, int limit, int timeout_ms)
    int eventfd(unsigned int value, int flags)
    int eventfd_write(int fd, uint64_t value)
    int eventfd_read(int fd, uint64_t* value)
    ssize_t recv(int fd, void* into, size_t limit, int flags)
    int shutdown(int fd, int how)
    int close(int fd)
    int pthread_join(pthread_t thread, void** result)
    void abort()

    int thread_start "fastsse_thread_start" (
        pthread_t* thread, thread_main entry, void* arg, const char* name)
    uint64_t monotonic_us "fastsse_monotonic_us" ()
    uint64_t wall_ms "fastsse_wall_ms" ()
    ssize_t send_parts "fastsse_send" (int fd, iovec* parts, size_t count)
    int socket_error "fastsse_socket_error" (int fd)
    bint is_writable "fastsse_is_writable" (int fd)
    int watch "fastsse_watch" (int poller, int fd, uint64_t tag, uint32_t events)
    int rewatch "fastsse_rewatch" (int poller, int fd, uint64_t tag, uint32_t events)
    int unwatch "fastsse_unwatch" (int poller, int fd)
    void out_of_memory "fastsse_out_of_memory" ()
    void prefetch "PREFETCH" (const void* at)

    void* load_pointer "ATOMIC_LOAD" (void** at)
    void store_pointer "ATOMIC_STORE" (void** at, void* value)
    void* swap_pointer "ATOMIC_SWAP" (void** at, void* value)
    bint cas_pointer "ATOMIC_CAS_POINTER" (void** at, void* expected, void* value)
    uint32_t load_u32 "ATOMIC_LOAD" (uint32_t* at)
    void store_u32 "ATOMIC_STORE" (uint32_t* at, uint32_t value)
    uint32_t swap_u32 "ATOMIC_SWAP" (uint32_t* at, uint32_t value)
    uint32_t or_u32 "ATOMIC_OR" (uint32_t* at, uint32_t value)
    bint cas_u32 "ATOMIC_CAS" (uint32_t* at, uint32_t expected, uint32_t value)
    uint32_t add_u32 "ATOMIC_ADD" (uint32_t* at, int value)
    int64_t relaxed_add "RELAXED_ADD" (int64_t* at, int64_t value)
    int64_t relaxed_load "RELAXED_LOAD" (int64_t* at)
    void relaxed_store "RELAXED_STORE" (int64_t* at, int64_t value)
    void bump "BUMP" (int64_t* at, int64_t by)

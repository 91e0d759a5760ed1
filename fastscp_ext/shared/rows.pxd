# The few counters that main and its workers share, in memory that outlives any of them.

from libc.stdint cimport uint32_t, uint64_t


cdef extern from *:
    """
    #include <stdint.h>
    static inline uint64_t shared_add(uint64_t *at, uint64_t n) {
        return __atomic_add_fetch(at, n, __ATOMIC_RELAXED);
    }
    static inline void shared_set(uint64_t *at, uint64_t n) {
        __atomic_store_n(at, n, __ATOMIC_RELEASE);
    }
    static inline uint64_t shared_get(uint64_t *at) {
        return __atomic_load_n(at, __ATOMIC_ACQUIRE);
    }
    static inline int shared_swap(uint64_t *at, uint64_t from, uint64_t to) {
        return __atomic_compare_exchange_n(at, &from, to, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    }
    """
    uint64_t shared_add(uint64_t* at, uint64_t n) noexcept nogil
    void shared_set(uint64_t* at, uint64_t n) noexcept nogil
    uint64_t shared_get(uint64_t* at) noexcept nogil
    int shared_swap(uint64_t* at, uint64_t before, uint64_t after) noexcept nogil

cdef enum:
    SHARED_WORKERS = 256
    SHARED_CLAIMS = 4096
    SHARED_COUNTERS = 8      # one cache line a worker

cdef enum Counter:
    COUNTER_BYTES = 0
    COUNTER_INSTANCES = 1
    COUNTER_REFUSED = 2
    COUNTER_HEARTBEAT = 3
    COUNTER_DISK = 4         # since when the loop is inside a file call, ms; 0: it is not
    COUNTER_BATCH_BEGUN = 5  # number of the batch that was begun last; names follow
    COUNTER_BATCH_ENDED = 6  # the same number once its lines are in the journal, or never will be

# What main found the store to be in.
cdef enum StoreState:
    STORE_FINE = 0
    STORE_SLOW = 1           # space runs short: reading is limited
    STORE_FULL = 2           # too short to take anything
    STORE_LOST = 3           # the path does not lead to the store any more

ctypedef struct SharedBlock:
    uint64_t journal_seq
    uint64_t store_state
    uint64_t slow_rate       # bytes/s a worker may read while STORE_SLOW
    uint64_t padding[5]
    uint64_t claims[SHARED_CLAIMS]
    uint64_t workers[SHARED_WORKERS][SHARED_COUNTERS]


cdef class Shared:
    cdef SharedBlock* block
    cdef readonly int fd

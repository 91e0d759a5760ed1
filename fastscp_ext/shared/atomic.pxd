# Words that several processes read and write.

from libc.stdint cimport uint32_t, uint64_t


cdef extern from *:
    """
    #include <stdint.h>
    static inline uint64_t word_add(uint64_t *at, uint64_t n) {
        return __atomic_add_fetch(at, n, __ATOMIC_RELAXED);
    }
    static inline void word_set(uint64_t *at, uint64_t n) {
        __atomic_store_n(at, n, __ATOMIC_RELEASE);
    }
    static inline uint64_t word_get(const uint64_t *at) {
        return __atomic_load_n(at, __ATOMIC_ACQUIRE);
    }
    static inline void half_set(uint32_t *at, uint32_t n) {
        __atomic_store_n(at, n, __ATOMIC_RELEASE);
    }
    static inline uint32_t half_get(const uint32_t *at) {
        return __atomic_load_n(at, __ATOMIC_ACQUIRE);
    }
    static inline int word_swap(uint64_t *at, uint64_t from, uint64_t to) {
        return __atomic_compare_exchange_n(at, &from, to, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    }
    /* Where one thread alone writes: no locked instruction, and readers see no half of a word. */
    static inline void word_count(uint64_t *at, uint64_t n) {
        __atomic_store_n(at, __atomic_load_n(at, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
    }
    """
    uint64_t word_add(uint64_t* at, uint64_t n) noexcept nogil
    void word_set(uint64_t* at, uint64_t n) noexcept nogil
    uint64_t word_get(const uint64_t* at) noexcept nogil
    void half_set(uint32_t* at, uint32_t n) noexcept nogil
    uint32_t half_get(const uint32_t* at) noexcept nogil
    int word_swap(uint64_t* at, uint64_t before, uint64_t after) noexcept nogil
    void word_count(uint64_t* at, uint64_t n) noexcept nogil

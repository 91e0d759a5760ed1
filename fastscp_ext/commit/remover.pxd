# A thread that closes files and removes parts.

cdef extern from "remover.h" nogil:
    enum:
        REMOVALS_MOST        # that wait, before nobody may cause more

    ctypedef struct remover:
        pass

    void remover_begin(remover* r, int wake_fd)
    void remover_post(remover* r, int fd, int folder_fd, const char* name)
    int remover_waiting(const remover* r)
    int remover_ask(remover* r)
    void remover_end(remover* r)

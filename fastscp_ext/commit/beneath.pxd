# Files and directories below a descriptor, reached without a symbolic link on the way.


cdef int open_file_beneath(int dir_fd, const char* path, int flags, int mode) noexcept nogil
cdef int make_directory_beneath(int dir_fd, const char* path) noexcept nogil

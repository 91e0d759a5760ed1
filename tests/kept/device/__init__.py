"""A block device that records what is done to it, and the disks that power cuts leave of it.

`disk` mounts a file system on such a device; `record` reads what recorder.c wrote; `cuts` makes
the images.
"""

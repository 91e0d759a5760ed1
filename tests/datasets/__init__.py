"""Data sets made from trees, sound and damaged, of which it is known what belongs to the instance.

`tree` writes them, `legal` makes them up, `faults` damages them, `sound` reads only what has no
fault at all, `readers` asks pydicom and DCMTK. Nothing here knows how the tap works.
"""

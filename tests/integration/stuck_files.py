"""A file system (FUSE) whose one file, `file`, can be opened and is never read: who reads it waits in the kernel where no signal reaches him,
until the file system is gone. Root only; standard library only."""

import ctypes
import os
import struct
import threading

LOOKUP, FORGET, GETATTR, OPEN, READ, INIT, OPENDIR, INTERRUPT, BATCH_FORGET, DESTROY = 1, 2, 3, 14, 15, 26, 27, 36, 42, 38
IN_HEADER, OUT_HEADER = struct.Struct("<IIQQIIII"), struct.Struct("<IiQ")
ENOSYS, ENOENT = 38, 2
DIRECT_IO = 1            # past the page cache, where a waiting reader could be killed
MNT_DETACH = 2
ROOT_NODE, FILE_NODE = 1, 2


def attributes(node):
    mode = 0o40755 if node == ROOT_NODE else 0o100444
    return struct.pack("<QQQQQQIIIIIIIIII", node, 4096, 8, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


class StuckFiles:
    """Mounted at `folder` while it is open. `readers` counts those that wait."""

    def __init__(self, folder):
        self.folder, self.readers = str(folder), threading.Semaphore(0)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
        if self._libc.mount(b"stuck", os.fsencode(self.folder), b"fuse", 0, options) != 0:
            error = ctypes.get_errno()
            os.close(self._device)
            raise OSError(error, os.strerror(error))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _answer(self, unique, payload=b"", error=0):
        os.write(self._device, OUT_HEADER.pack(OUT_HEADER.size + len(payload), -error, unique) + payload)

    def _serve(self):
        try:
            while True:
                packet = os.read(self._device, 1 << 20)
                _size, operation, unique, node, *_rest = IN_HEADER.unpack_from(packet)
                if operation == INIT:
                    self._answer(unique, struct.pack("<IIIIHHIIHHI7I", 7, 31, 65536, 0, 16, 12, 65536, 1, 1, 0, 0, *[0] * 7))
                elif operation == LOOKUP:
                    if packet[IN_HEADER.size:].rstrip(b"\0") == b"file":
                        self._answer(unique, struct.pack("<QQQQII", FILE_NODE, 0, 1, 1, 0, 0) + attributes(FILE_NODE))
                    else:
                        self._answer(unique, error=ENOENT)
                elif operation == GETATTR:
                    self._answer(unique, struct.pack("<QII", 1, 0, 0) + attributes(node))
                elif operation in (OPEN, OPENDIR):
                    self._answer(unique, struct.pack("<QII", 0, DIRECT_IO if operation == OPEN else 0, 0))
                elif operation == READ:
                    self.readers.release()
                elif operation not in (FORGET, BATCH_FORGET, INTERRUPT, DESTROY):
                    self._answer(unique, error=ENOSYS)
        except OSError:
            pass  # it was closed

    def close(self):
        """Whoever waits gets an error."""
        self._libc.umount2(os.fsencode(self.folder), MNT_DETACH | 1)  # MNT_FORCE: what is under way is aborted
        os.close(self._device)

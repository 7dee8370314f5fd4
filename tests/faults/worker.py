"""The process whose forks are watched: `python worker.py SOCKET`. Forking spares the imports."""

import array
import json
import os
import socket
import struct
import sys
import tempfile
import traceback

from tests.faults import watch


def main(connection):
    from tests.faults import small_build

    while head := connection.recv(4):
        (size,) = struct.unpack("=I", head)
        function, arguments, is_watched = json.loads(watch.exactly(connection, size))
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as result:
            pid = os.fork()
            if not pid:
                _child(connection, output, result, getattr(small_build, function), arguments,
                       is_watched)
            _, status = os.waitpid(pid, 0)
            found = os.pread(result.fileno(), 1 << 20, 0)
            connection.sendall(
                struct.pack("=iI", os.waitstatus_to_exitcode(status), len(found)) + found)


def _child(connection, output, result, function, arguments, is_watched):
    os.setsid()
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    try:
        handles = [output.fileno(), *([watch.install()] if is_watched else [])]
        connection.sendmsg(
            [struct.pack("=I", os.getpid())],
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", handles))],
        )
        for handle in (*handles[1:], connection.fileno()):
            os.close(handle)
        found = function(**arguments)
        os.pwrite(result.fileno(), json.dumps(found).encode(), 0)
        sys.stdout.flush()
        status = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        status = 1
    os._exit(status)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))

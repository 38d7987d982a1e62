"""Run ClickHouse (the ``clickhouse local`` inside libchdb.so) as a long-lived server with its HTTP and native ports.

Usage: ``clickhouse_launcher.py LIBCHDB DATA_DIR CONFIG_XML``. It is a stand-alone script: devstack starts it with the
bare interpreter. SIGTERM or SIGINT stop it cleanly (exit 0); exit 1 means that ClickHouse ended by itself.

Three things make a server of it, each found by a failure:

* An embedded connection is opened and closed first: it creates the pool without which BACKUP to S3 says
  "The BackupsIOThreadPool is not initialized". The price is an empty text log.
* Standard input is a pseudo-terminal and ``--interactive`` is on; otherwise one connection reset by a client ends all.
* The last query reads from a pipe that nobody writes to; closing it ends the query and so, in order, the server.
"""

from __future__ import annotations

import ctypes
import os
import pty
import signal
import sys
import threading
import tty

_STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}


def _load(path: str) -> ctypes.CDLL:
    library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    library.chdb_query_cmdline.restype = ctypes.c_void_p
    library.chdb_result_error.restype = ctypes.c_char_p
    library.chdb_result_error.argtypes = [ctypes.c_void_p]
    library.chdb_connect.restype = ctypes.c_void_p
    library.chdb_close_conn.argtypes = [ctypes.c_void_p]
    return library


def _c_strings(texts: list[str]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * (len(texts) + 1))(*[text.encode() for text in texts], None)


def _arguments(data_dir: str, config: str, wait_fd: int) -> list[str]:
    script = (
        "SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP; "
        f"SELECT * FROM file('/dev/fd/{wait_fd}', 'LineAsString', 'l String') FORMAT Null"
    )
    return [
        "clickhouse",
        "--multiquery",
        "--interactive",
        "--disable_suggestion",
        f"--history_file={data_dir}/.client-history",  # a plain file: ClickHouse would set /dev/null to mode 0600
        "--progress=off",
        "--progress-table=off",
        f"--path={data_dir}",
        f"--config-file={config}",
        f"--query={script}",
    ]


def main(library_path: str, data_dir: str, config: str) -> None:
    """Serve until a stop signal; never returns."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)  # inherited by every ClickHouse thread: ours alone waits
    wait_fd, stop_fd = os.pipe()
    terminal, standard_input = pty.openpty()
    tty.setraw(standard_input)
    os.dup2(standard_input, 0)
    os.close(standard_input)
    os.write(terminal, b"exit\n")  # typed ahead, read once the query has ended
    library = _load(library_path)
    library.chdb_close_conn(library.chdb_connect(1, _c_strings(["clickhouse"])))
    arguments = _arguments(data_dir, config, wait_fd)
    stopping = threading.Event()

    def serve() -> None:
        result = library.chdb_query_cmdline(len(arguments), _c_strings(arguments))  # ctypes releases the GIL
        error = library.chdb_result_error(result) if result else None
        if error:
            print("launcher:", error.decode("utf-8", "replace"), file=sys.stderr, flush=True)
        how = "stopped" if stopping.is_set() else "ClickHouse ended by itself"
        print(f"launcher: {how}", file=sys.stderr, flush=True)
        os._exit(0 if stopping.is_set() else 1)  # the library's own exit handlers do not survive a second run

    threading.Thread(target=serve, daemon=True).start()
    received = signal.sigwait(_STOP_SIGNALS)
    print(f"launcher: signal {received}, stopping", file=sys.stderr, flush=True)
    stopping.set()
    os.close(stop_fd)
    os._exit(128 + signal.sigwait(_STOP_SIGNALS))  # asked twice


if __name__ == "__main__":
    main(*sys.argv[1:4])

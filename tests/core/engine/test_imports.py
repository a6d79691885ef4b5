"""Threads of a server may all be the first to need the models."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

CODE = """
import threading, traceback
from importlib import import_module

failed = []
barrier = threading.Barrier(4)

def work(name):
    barrier.wait()
    try:
        from core.engine import get_engine
        import_module(name)
        get_engine()
    except BaseException:
        failed.append(traceback.format_exc())

names = ("core.sam.build", "core.sam.pipeline", "core.sam.everything", "core.engine.timing")
threads = [threading.Thread(target=work, args=(name,)) for name in names]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("".join(failed) or "fine")
"""


def test_threads_may_import_at_the_same_time():
    run = subprocess.run(
        [sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "fine"

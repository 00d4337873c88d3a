"""Run several commands `python -m monai.bundle ...`, each in a process of its own that need not start anew.

python forked.py COMMANDS.json

The file holds a list of {"arguments": what stands after monai.bundle, "cwd": folder, "output": file}. Each runs in a
fork of this process, which has imported torch and MONAI and nothing of a bundle, and writes to its output file; the
statuses are printed as a list.
"""

import json
import os
import runpy
import sys
import traceback

import monai.bundle
import torch


def run(command):
    """In a fork: become the command, and end."""
    os.chdir(command["cwd"])
    file = os.open(command["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    torch.set_num_threads(1)
    sys.path[0] = command["cwd"]  # as `python -m` has it
    sys.argv = ["monai.bundle", *command["arguments"]]
    try:
        runpy.run_module("monai.bundle", run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main():
    with open(sys.argv[1]) as file:
        commands = json.load(file)
    statuses = []
    for command in commands:
        child = os.fork()
        if not child:
            status = run(command)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(json.dumps(statuses))


if __name__ == "__main__":
    assert monai.bundle
    main()

"""Kernels compiled without a device: to LTO IR by Numba, linked by nvJitLink, read back by nvdisasm.

`compiled` takes a kernel as the backend makes it and a signature, and says what the hardware would be given: registers,
stack, spills, and the instructions of the main loop.
"""

import re
import shutil
import subprocess
import tempfile
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

EXTRA = "test-cuda"

_LABEL = re.compile(r"^\s*(\.L_x_\d+):")
_INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(.*?);")
_OPERATION = re.compile(r"^(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)")
_BRANCH = re.compile(r"\bBRA\b.*`\((\.L_x_\d+)\)")


def missing():
    """What cannot be found that this needs, as a sentence that says what to install; or None."""
    wanted = {
        "numba-cuda": find_spec("numba_cuda"),
        "nvJitLink": find_spec("cuda") and find_spec("cuda.bindings") and find_spec("cuda.bindings.nvjitlink"),
        "nvdisasm": disassembler(),
    }
    absent = [name for name, found in wanted.items() if not found]
    return f"{', '.join(absent)} not found; install numbaconv[{EXTRA}]" if absent else None


def disassembler():
    """The path of nvdisasm: from its wheel, or else from a toolkit."""
    nvidia = find_spec("nvidia")
    for root in nvidia.submodule_search_locations if nvidia else []:
        for found in sorted(Path(root).glob("*/bin/nvdisasm*")):
            return str(found)
    return shutil.which("nvdisasm")


@dataclass(frozen=True)
class Compiled:
    """What became of a kernel for one architecture."""

    registers: int
    stack: int
    spilled: int
    shared: int
    assembly: str

    @cached_property
    def lines(self):
        """Labels, and instructions without their addresses."""
        found = []
        for line in self.assembly.splitlines():
            label, instruction = _LABEL.match(line), _INSTRUCTION.match(line)
            if label:
                found.append(f"{label[1]}:")
            elif instruction and not instruction[1].startswith("NOP"):
                found.append(instruction[1])
        return found

    @property
    def operations(self):
        """How often each operation occurs in the whole kernel."""
        return _operations(self.lines)

    def main_loop(self, operation):
        """The loop with the most of an operation; the shortest, if several have as many."""
        labels = {line[:-1]: at for at, line in enumerate(self.lines) if line.endswith(":")}
        loops = []
        for at, line in enumerate(self.lines):
            branch = _BRANCH.search(line)
            if branch and labels.get(branch[1], at) < at:
                body = _operations(self.lines[labels[branch[1]] : at + 1])
                loops.append((-_count(body, operation), body.total(), at))
        if not loops:
            return Counter()
        _, _, at = min(loops)
        branch = _BRANCH.search(self.lines[at])
        return _operations(self.lines[labels[branch[1]] : at + 1])

    def share(self, operation):
        """Which part of the main loop's instructions an operation is."""
        loop = self.main_loop(operation)
        return _count(loop, operation) / max(loop.total(), 1)


def _operations(lines):
    return Counter(_OPERATION.match(line)[1] for line in lines if not line.endswith(":"))


def _count(operations, prefix):
    return sum(count for name, count in operations.items() if name == prefix or name.startswith(f"{prefix}."))


@contextmanager
def architecture(cc):
    """Device functions are compiled for the current device, of which there is none: here it has this architecture."""
    from numba.cuda import compiler, dispatcher

    class Device:
        compute_capability = cc

    before = dispatcher.get_current_device, compiler.get_current_device
    dispatcher.get_current_device = compiler.get_current_device = lambda: Device
    try:
        yield
    finally:
        dispatcher.get_current_device, compiler.get_current_device = before


def to_ltoir(kernel, signature, cc):
    """A kernel's LTO IR and that of what it links."""
    from numba import cuda

    bounds = kernel.targetoptions.get("launch_bounds")
    with architecture(cc):
        codes, _ = cuda.compile_all(
            kernel.py_func, signature, cc=cc, device=False, abi="numba", output="ltoir", launch_bounds=bounds
        )
    return [code if isinstance(code, bytes) else code.data for code in codes]


def link(codes, cc):
    """LTO IR linked for an architecture and disassembled."""
    from cuda.bindings import nvjitlink

    arch = f"sm_{cc[0]}{cc[1]}"
    linker = nvjitlink.create(3, [f"-arch={arch}", "-lto", "-verbose"])
    try:
        for code in codes:
            nvjitlink.add_data(linker, nvjitlink.InputType.LTOIR, code, len(code), "kernel")
        nvjitlink.complete(linker)
        log = bytearray(nvjitlink.get_info_log_size(linker))
        nvjitlink.get_info_log(linker, log)
        cubin = bytearray(nvjitlink.get_linked_cubin_size(linker))
        nvjitlink.get_linked_cubin(linker, cubin)
    finally:
        nvjitlink.destroy(linker)
    return _described(log.decode(), bytes(cubin))


def _described(log, cubin):
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([disassembler(), "-c", file.name], capture_output=True, text=True, check=True)
    stack, stores, loads = re.search(
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log
    ).groups()
    shared = re.search(r"(\d+) bytes smem", log)
    return Compiled(
        registers=int(re.search(r"Used (\d+) registers", log)[1]),
        stack=int(stack),
        spilled=int(stores) + int(loads),
        shared=int(shared[1]) if shared else 0,
        assembly=done.stdout,
    )


def compiled(kernel, signature, cc):
    """A kernel compiled for one architecture."""
    return link(to_ltoir(kernel, signature, cc), cc)

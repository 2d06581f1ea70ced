"""What a job's container is and is not given, and whether the engine really did so. Pure.

The engine's defaults that are relied on: its masked and read-only paths in /proc and /sys, and namespaces of the container's own for
processes, mounts, names and IPC. The image decides over the files that the job sees and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["OUTPUT", "OUTPUT_NAME", "OUTPUT_VOLUME", "SCRATCH", "config_of", "deviations"]

OUTPUT_VOLUME: Final = "/tradeskill"
OUTPUT_NAME: Final = "output"
OUTPUT: Final = f"{OUTPUT_VOLUME}/{OUTPUT_NAME}"  # made in the volume before the start, because who owns the volume depends on the engine
SCRATCH: Final = "/scratch"
_OPEN_FILES: Final = 256
_TASKS_OF_USER: Final = 4096  # counted over all containers, as they share a user; the limit that counts for one job is on its cgroup
_LOG_OVERHEAD: Final = 32  # a line of one character costs its log this many times as much


def config_of(task: Mapping[str, Any], image_id: str, image_volumes: tuple[str, ...]) -> dict[str, Any]:
    """The body of the engine's create call. `task`: the execution's task.json. No name is in it."""
    limits, box = task["limits"], task["container"]
    output, memory, scratch = int(limits["output"]), int(limits["memory"]), int(limits["scratch"])
    cpu = int(limits["cpu_seconds"]) + 1
    space = f"rw,exec,nosuid,nodev,size={scratch}"  # `exec` is Podman's default and not Docker's: a program may build what it runs
    return {
        "Image": image_id,
        "Entrypoint": task["argv"][:1],  # so that no entry point of the image's runs instead
        "Cmd": task["argv"][1:],
        "Env": [f"HOME={SCRATCH}", f"TMPDIR={SCRATCH}", "LANG=C.UTF-8", f"TRADESKILL_OUTPUT={OUTPUT}", *_NO_PROXIES],
        "WorkingDir": SCRATCH,
        "User": box["user"],
        "Tty": False,
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "Healthcheck": {"Test": ["NONE"]},  # an image's own would run beside the job, again and again
        "Labels": dict(box["labels"]),
        "HostConfig": {
            "NetworkMode": box["network"],
            "ReadonlyRootfs": True,
            "Privileged": False,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges", f"seccomp={box['calls']}"],
            "Init": True,  # a first process that reaps, and passes SIGTERM on
            "IpcMode": "private",
            "PublishAllPorts": False,
            "RestartPolicy": {"Name": "no"},
            "Memory": memory,
            "MemorySwap": memory,
            "PidsLimit": int(limits["processes"]),
            "NanoCpus": int(box["cpus"] * 1e9),
            "ShmSize": scratch,
            "Ulimits": [
                _ulimit("cpu", cpu, cpu + 1),
                _ulimit("fsize", output + 1),
                _ulimit("nofile", _OPEN_FILES),
                _ulimit("nproc", _TASKS_OF_USER),
                _ulimit("core", 0),
            ],
            "Tmpfs": {
                SCRATCH: f"{space},mode=1777",
                "/tmp": f"{space},mode=1777",  # noqa: S108  # the container's
                **dict.fromkeys(("/run", "/var/tmp", *image_volumes), "rw,nosuid,nodev,noexec,size=1m,mode=1777"),  # noqa: S108  # as above
            },
            "Mounts": [{"Type": "volume", "Target": OUTPUT_VOLUME}],
            "LogConfig": {"Type": box["log"], "Config": {"max-size": str(_LOG_OVERHEAD * (output + 2**20))}},
        },
    }


_NO_PROXIES: Final = tuple(f"{name}=" for name in ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY"))
# Podman hands a container the proxies of its own environment, with the passwords in them


def deviations(wanted: Mapping[str, Any], made: Mapping[str, Any]) -> list[str]:
    """Where a container as the engine shows it is less shut in than it was asked for. An engine may drop what it cannot do with a mere warning."""
    ask, host = wanted["HostConfig"], made["HostConfig"]
    security = [str(word) for word in host.get("SecurityOpt") or ()]
    networks = {"none"} if ask["NetworkMode"] == "none" else {ask["NetworkMode"], "bridge"}  # Podman shows the kind of a named one
    checks = {
        "the root file system is not read-only": host.get("ReadonlyRootfs") is True,
        "it is privileged": host.get("Privileged") is False,
        "capabilities were not dropped": bool(host.get("CapDrop")) and not host.get("CapAdd"),
        "new privileges can be gained": any(word.startswith("no-new-privileges") and not word.endswith("false") for word in security),
        "system calls are not filtered": any(word.startswith("seccomp=") and not word.endswith("=unconfined") for word in security),
        "memory is not limited": host.get("Memory") == ask["Memory"],
        "processes are not limited": host.get("PidsLimit") == ask["PidsLimit"],
        "the processor is not shared": 0 < (host.get("NanoCpus") or 0) <= ask["NanoCpus"],
        "it has another network": host.get("NetworkMode") in networks,
        "it shares the machine's processes or IPC": "host" not in (host.get("PidMode"), host.get("IpcMode"), host.get("UTSMode")),
        "it has devices": not host.get("Devices"),
        "it runs as another user": made["Config"].get("User") == wanted["User"],
        "it has other mounts": all(mount.get("Type") in ("volume", "tmpfs") for mount in made.get("Mounts") or ()),
    }
    return [fault for fault, fine in checks.items() if not fine]


def _ulimit(name: str, soft: int, hard: int | None = None) -> dict[str, object]:
    return {"Name": name, "Soft": soft, "Hard": soft if hard is None else hard}

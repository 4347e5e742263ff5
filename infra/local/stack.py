"""The local stack: its programs under one supervisord, started as they are needed.

    with Stack(home, settings) as stack:        # stops everything at the end, whatever ends it
        stack.start("kafka", "redis", "triton")
        stack.load_model("3")
        stack.start("worker", "sink")

Without `with`, a started stack stays when the caller ends, until `stop`.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from xmlrpc.client import Error as RpcError

import psutil
from pydantic import SecretStr

from infra.exceptions import ProgramFailedError, StackError
from infra.local.programs import Program, programs
from infra.local.remote import SOCKET, supervisor_at
from intentstream.paths import MODEL_REPOSITORY
from intentstream.served_versions import ServedModels
from stream.exceptions import PortTakenError
from stream.home import HOME
from stream.patience import Patience
from stream.ports import is_free
from stream.settings import KAFKA_SECURITY

if TYPE_CHECKING:
    from collections.abc import Collection
    from types import TracebackType

    from stream.settings import Settings

_POLL_S: Final = 0.1
_SUPERVISOR_S: Final = 15
_RESTARTS_BEFORE_FAILED: Final = 3
_SOCKET_PATH_BYTES: Final = 100
"""Linux allows 107; supervisord binds to the path with its own process id behind it first."""


def on_loopback(settings: Settings) -> Settings:
    """`settings` with every client address pointing at the local stack's own ports, unsecured."""
    unsecured = {name: type(settings).model_fields[name].default for name in KAFKA_SECURITY}
    return settings.model_copy(
        update={
            **unsecured,
            "console_host": "127.0.0.1",
            "console_targets": "",
            "kafka_bootstrap": f"127.0.0.1:{settings.kafka_port}",
            "triton_url": f"127.0.0.1:{settings.triton_grpc_port}",
            "redis_url": SecretStr(f"127.0.0.1:{settings.redis_port}"),
        }
    )


@dataclass(frozen=True, slots=True)
class ProgramStatus:
    """What the supervisor says of a program, and whether it is ready by its own health check.

    `pid` is 0 while it doesn't run. `ended_at` and `started_at` are when it did so last, in seconds
    since the epoch, 0 when it never did; of one that was started again both are set.
    """

    name: str
    state: str
    pid: int
    ready: bool
    log: Path
    started_at: int
    ended_at: int


class Stack:
    """Kafka, Redis, Triton, the worker and the sink of one home directory.

    All methods block; where an event loop runs, call them from a thread. Inside `with`, the thread
    that starts the first program must live as long as the stack: the kernel stops a stack whose
    starter has ended. Several `Stack` objects, also in different processes, may use one home: they
    share its supervisor.

    Args:
        home: holds configuration, data, logs and the supervisor's socket; made when absent.
        settings: ports of the servers, and the settings of the worker and the sink.
        model_repository: where `load_model` takes versions from.
    """

    def __init__(
        self, home: Path, settings: Settings, model_repository: Path = MODEL_REPOSITORY
    ) -> None:
        self.home = home.absolute()
        self.settings = settings
        self.logs = self.home / "logs"
        self.models = self.home / "triton" / "models"
        self._served = ServedModels(
            model_repository.absolute(),
            self.models,
            settings.model_name,
            [f"127.0.0.1:{settings.triton_grpc_port}"],
        )
        self._programs = programs(self.home, settings)
        self._socket = self.home / SOCKET
        self._config = self.home / "supervisord.conf"
        self._supervisord: subprocess.Popen[bytes] | None = None
        self._ends_with_caller = False

    def __enter__(self) -> Self:
        self._ends_with_caller = True
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stops the stack if this object started it; leaves one that ran before."""
        if self._supervisord is not None:
            self.stop()

    def running(self) -> bool:
        """Whether the supervisor of this home runs."""
        try:
            return bool(self._rpc.getState()["statename"] == "RUNNING")
        except (OSError, RpcError, HTTPException):
            return False

    def start(self, *names: str) -> None:
        """Starts the named programs, all when none is named, and waits until they are ready.

        One that runs already is left alone, unless the settings changed what it should be: then it
        is restarted. Programs that aren't named go on as they are. When the first call for a
        stopped stack fails, it stops what it started.

        Raises:
            PortTakenError: when another process listens on a port that a program needs.
            ProgramFailedError: when a program ends or isn't ready in time.
            SetupIncompleteError: when `make setup` has not provided a program.
            StackError: when the supervisor itself does not start.
        """
        wanted = set(names or self._programs)
        launched = self._launch_supervisor()
        try:
            self._adopt_settings(wanted)
            self._start(wanted)
        except BaseException:
            if launched:
                self.stop()
            raise

    def stop(self) -> None:
        """Stops every program, the last started first, then the supervisor. Idempotent."""
        try:
            supervisor = psutil.Process(self._rpc.getPID())
            family = [supervisor, *supervisor.children(recursive=True)]
            self._rpc.shutdown()
        except (OSError, RpcError, HTTPException, psutil.NoSuchProcess):
            family = []
        patience = sum(program.stop_s for program in self._programs.values())
        _, alive = psutil.wait_procs(family, timeout=patience)
        for process in alive:
            process.kill()
        psutil.wait_procs(alive, timeout=10)
        if self._supervisord is not None:
            self._supervisord.wait()
            self._supervisord = None

    def stop_program(self, name: str) -> None:
        """Stops the program in good order, if it runs."""
        if self._info(name)["statename"] in ("STARTING", "RUNNING", "BACKOFF"):
            self._rpc.stopProcess(name)

    def restart(self, name: str) -> None:
        """Stops the program in good order, starts it again and waits until it is ready."""
        self.stop_program(name)
        self.start(name)

    def pid(self, name: str) -> int:
        """Process id of the program, 0 while it doesn't run."""
        return int(self._info(name)["pid"])

    def status(self) -> list[ProgramStatus]:
        """The state of every program; empty while no supervisor runs."""
        if not self.running():
            return []
        return [
            ProgramStatus(
                name,
                info["statename"],
                info["pid"],
                bool(info["pid"]) and program.is_ready(),
                self._log(name),
                started_at=info["start"],
                ended_at=info["stop"],
            )
            for name, program in self._programs.items()
            for info in (self._info(name),)
        ]

    def wait(self, name: str) -> None:
        """Waits until the program is ready, by its own health check.

        Raises:
            ProgramFailedError: when it ends for good, ends again and again, or takes too long.
        """
        program = self._programs[name]
        patience = Patience(program.ready_s)
        seen: set[int] = set()
        while not program.is_ready():
            info = self._info(name)
            seen.add(info["pid"])
            # A program that restarts is EXITED only for the moment before it does.
            over = ("FATAL", "STOPPED") if program.restarts else ("FATAL", "STOPPED", "EXITED")
            if info["statename"] in over:
                raise self._failed(name, f"ended ({info['description']})")
            if len(seen - {0}) > _RESTARTS_BEFORE_FAILED:
                raise self._failed(name, "ends again and again")
            if patience.over:
                raise self._failed(name, f"was not ready within {patience.waited_s:.0f} s")
            time.sleep(_POLL_S)

    def load_model(self, *versions: str, also: Collection[str] = ()) -> None:
        """Makes Triton serve exactly these versions of the model, also after it was restarted.

        Args:
            versions: their numbers.
            also: served too, those of them that are still to be had.

        Raises:
            ModelVersionError: when a version is absent or can't be loaded.
        """
        self._served.serve(*versions, also=also)

    @property
    def _rpc(self) -> Any:
        return supervisor_at(self._socket)

    def _launch_supervisor(self) -> bool:
        """Writes the configuration, and starts a supervisor unless one runs.

        Returns:
            Whether it started one.
        """
        if len(os.fsencode(self._socket)) > _SOCKET_PATH_BYTES:
            raise StackError(f"the path {self._socket} is too long for a socket; move the checkout")
        self.logs.mkdir(parents=True, exist_ok=True)
        self._config.touch(mode=0o600)
        self._config.write_text(self._render())
        if self.running():
            return False
        log = self.logs / "supervisord.log"
        with log.open("wb") as out:
            self._supervisord = subprocess.Popen(  # noqa: S603 - our own command
                [
                    # What dies with the caller dies even where the caller can't clean up (SIGKILL).
                    *(_dies_with_parent("TERM") if self._ends_with_caller else ()),
                    *(sys.executable, "-m", "supervisor.supervisord", "-c", str(self._config)),
                ],
                # The programs take their settings from the configuration alone, and a folder for
                # metrics that Feast names in each process that imports it ends with that process.
                env={
                    name: value
                    for name, value in os.environ.items()
                    if not name.startswith(("INTENT_", "PROMETHEUS_MULTIPROC"))
                },
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                # Out of the terminal's process group: Ctrl-C reaches the caller, who stops us.
                start_new_session=True,
            )
        patience = Patience(_SUPERVISOR_S)
        while not self.running():
            if self._supervisord.poll() is not None or patience.over:
                self._supervisord.kill()
                self._supervisord.wait()
                self._supervisord = None
                raise StackError(f"supervisord did not start: {_tail(log)}")
            time.sleep(_POLL_S)
        return True

    def _start(self, wanted: set[str]) -> None:
        ordered = [name for name in self._programs if name in wanted]
        absent = [
            name
            for name in ordered
            if self._info(name)["statename"] not in ("STARTING", "RUNNING", "BACKOFF")
        ]
        for name in absent:
            self._check_ports(name)
        for name in absent:
            self._programs[name].prepare()
            self._rpc.startProcess(name, False)
        for name in ordered:
            self.wait(name)

    def _adopt_settings(self, wanted: set[str]) -> None:
        """Gives the supervisor what was just written of these programs; stops those that change."""
        _, changed, _ = self._rpc.reloadConfig()[0]
        for name in wanted.intersection(changed):
            self.stop_program(name)
            self._rpc.removeProcessGroup(name)
            self._rpc.addProcessGroup(name)

    def _info(self, name: str) -> dict[str, Any]:
        info: dict[str, Any] = self._rpc.getProcessInfo(name)
        return info

    def _log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def _check_ports(self, name: str) -> None:
        for setting in self._programs[name].ports:
            port = getattr(self.settings, setting)
            if not is_free(port):
                raise PortTakenError(name, port, f"INTENT_{setting.upper()}")

    def _failed(self, name: str, what: str) -> ProgramFailedError:
        return ProgramFailedError(name, what, self._log(name), _tail(self._log(name)))

    def _render(self) -> str:
        sections = [
            "[supervisord]",
            "nodaemon=true",
            # Its log is its standard output, which `_launch_supervisor` points at a file.
            "logfile=/dev/null",
            "logfile_maxbytes=0",
            f"pidfile={_escaped(self.home / 'supervisord.pid')}",
            f"directory={_escaped(HOME)}",
            "[unix_http_server]",
            f"file={_escaped(self._socket)}",
            "chmod=0700",
            "[rpcinterface:supervisor]",
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
        ]
        for order, (name, program) in enumerate(self._programs.items()):
            sections += self._render_program(name, program, order)
        return "\n".join((*sections, ""))

    def _render_program(self, name: str, program: Program, order: int) -> list[str]:
        environment = ",".join(
            f"{variable}={_quoted(value)}" for variable, value in program.environment.items()
        )
        command = shlex.join((*_dies_with_parent("KILL"), *program.command))
        return [
            f"[program:{name}]",
            f"command={_escaped(command)}",
            f"environment={_escaped(environment)}",
            f"priority={order}",
            "autostart=false",
            f"autorestart={'true' if program.restarts else 'false'}",
            "startretries=10" if program.restarts else "startretries=0",
            f"stopwaitsecs={program.stop_s}",
            "killasgroup=true",
            "redirect_stderr=true",
            f"stdout_logfile={_escaped(self._log(name))}",
            "stdout_logfile_maxbytes=20MB",
            "stdout_logfile_backups=1",
        ]


def _dies_with_parent(signal_name: str) -> tuple[str, ...]:
    """Command prefix: the kernel sends the program this signal when its parent ends."""
    return ("setpriv", "--pdeathsig", signal_name, "--")


def _escaped(text: object) -> str:
    """`text` as a value of supervisord's configuration, where % starts an expansion."""
    return str(text).replace("%", "%%")


def _quoted(value: str) -> str:
    """`value` as supervisord's `environment` reads it: quotes can't be escaped, but chosen."""
    quote = "'" if '"' in value else '"'
    if quote in value or "\n" in value:
        raise StackError("a setting has both kinds of quotes or a line break; change its value")
    return f"{quote}{value}{quote}"


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:]) if log.exists() else ""

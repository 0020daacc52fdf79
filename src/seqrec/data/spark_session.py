"""A Spark to prepare logs with: the one that is there, or one that is started and stopped again."""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqrec.errors import DataError, MissingExtraError, SeqrecError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: What preparing relies on; set in the caller's session, with everything else that was set there, and put back.
SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.caseSensitive": "true",
    "spark.sql.csv.parser.columnPruning.enabled": "false",  # else a row with too many columns is not noticed
    "spark.sql.execution.arrow.maxRecordsPerBatch": "65536",
    "spark.sql.files.ignoreCorruptFiles": "false",
    "spark.sql.files.ignoreMissingFiles": "false",
    "spark.sql.files.maxRecordsPerFile": "0",
    "spark.sql.parquet.inferTimestampNTZ.enabled": "true",
}
#: Of a Spark that is started here.
STARTED = {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false", "spark.log.level": "ERROR"}
_JAVA = (
    "Spark needs Java 17 or newer{}. Install it (Debian and Ubuntu: apt install openjdk-17-jre-headless), or set "
    "JAVA_HOME."
)


@contextmanager
def spark_session(master: str, given: SparkSession | None = None) -> Iterator[SparkSession]:
    """The session that is given, else the active one, else a new one, with `SETTINGS` for as long as the block lasts.

    Args:
        master: where a new Spark runs: `local[*]`, `spark://host:7077`, `yarn`, ...
        given: is left running, with the settings that it had.

    Raises:
        MissingExtraError: pyspark or pandas, which it needs to talk to Python, is not installed.
        SeqrecError: there is no Java, or Spark does not start.
    """
    with warnings.catch_warnings():
        # Said of pandas frames, of which there are none here.
        warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
        try:
            import pandas  # noqa: F401  Spark's functions on Arrow ask for it
            from pyspark.sql import SparkSession
        except ImportError as error:
            raise MissingExtraError("pyspark", "spark") from error
        running = given or SparkSession.getActiveSession()
        spark = running or _start(master)
        before = {name: spark.conf.get(name, None) for name in SETTINGS}
        try:
            for name, value in SETTINGS.items():
                spark.conf.set(name, value)
            yield spark
        finally:
            if running is None:
                spark.stop()
            else:
                _put_back(spark, before)


def _put_back(spark: SparkSession, settings: dict[str, str | None]) -> None:
    for name, value in settings.items():
        if value is None:
            spark.conf.unset(name)
        else:
            spark.conf.set(name, value)


def _start(master: str) -> Any:
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    home = os.environ.get("JAVA_HOME")
    if not (Path(home, "bin", "java").is_file() if home else shutil.which("java")):
        raise SeqrecError(_JAVA.format(f", and JAVA_HOME ({home}) holds none" if home else ", and there is none"))
    builder = SparkSession.builder.master(master).appName("seqrec")
    settings = dict(STARTED)
    if master.startswith("local"):
        settings["spark.driver.host"] = "127.0.0.1"
    for name, value in settings.items():
        builder = builder.config(name, value)
    try:
        with _python(sys.executable if master.startswith("local") else None):
            return builder.getOrCreate()
    except (PySparkException, RuntimeError) as error:
        raise SeqrecError(f"Spark did not start ({_first_line(error)}). {_JAVA.format('')}") from error
    except Exception as error:  # py4j's, which cannot be imported before pyspark has found it
        if (said := java_message(error)) is None:
            raise
        raise SeqrecError(f"Spark at {master} did not start: {said}") from error


@contextmanager
def _python(interpreter: str | None) -> Iterator[None]:
    """The one that Spark takes for its workers, if nobody named another: `python3` of the path may lack packages."""
    if interpreter is None or "PYSPARK_PYTHON" in os.environ:
        yield
        return
    os.environ["PYSPARK_PYTHON"] = interpreter
    try:
        yield
    finally:
        del os.environ["PYSPARK_PYTHON"]


@contextmanager
def explained(where: str) -> Iterator[None]:
    """What Spark raises in the block as a `DataError` that names `where` and the cause, without Java's stack."""
    from pyspark.errors import PySparkException, PythonException

    try:
        yield
    except PythonException as error:
        raise DataError(
            f"{where}: Python on an executor gave up: {_last_line(error)}. It needs duckdb, pyarrow and pandas; "
            "PYSPARK_PYTHON says which Python that is."
        ) from error
    except PySparkException as error:
        raise DataError(f"{where}: Spark gave up: {java_message(error) or _first_line(error)}") from error
    except Exception as error:
        if (said := java_message(error)) is None:
            raise
        raise DataError(f"{where}: Spark gave up: {said}") from error


def java_message(error: BaseException) -> str | None:
    """The first line of what lies at the bottom of a Java exception; None where the error is not Java's."""
    cause = getattr(error, "java_exception", None)
    if cause is None:
        return None
    while (deeper := cause.getCause()) is not None:
        cause = deeper
    lines: list[str] = str(cause.toString()).splitlines()
    return lines[0][:500]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500]


def _last_line(error: Exception) -> str:
    """Of a Python traceback what was raised."""
    raised = [line for line in str(error).splitlines() if line and not line.startswith((" ", "Traceback"))]
    return (raised or [type(error).__name__])[-1].strip()[:500]

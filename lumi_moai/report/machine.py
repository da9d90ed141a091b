"""A report for machines: one JSON object with stable keys, or CSV with one line per run."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ..logs import Log
from ..usage import Accounting, Throughput
from .gap import gap, per_million_tokens
from .run import Certificate, Planned, Report

_NO_LOG = Log(name="")
_COLUMNS = (
    "job_id", "name", "site", "outcome", "state", "records", "first_step", "last_step", "loss_first", "loss_last",
    "throughput", "throughput_unit", "step_seconds", "world_size", "nodes", "devices", "elapsed_seconds",
    "billing_units", "unit", "planned_billing_units", "restarts", "evidence", "cause",
)  # fmt: skip


def as_dict(report: Report) -> dict[str, Any]:
    """The JSON object of *report*; the keys up to `planned` never change."""
    log, bill, took = report.log or _NO_LOG, report.bill, report.accounting
    return {
        "outcome": report.outcome,
        "records": sum(_records(task) for task in report.tasks) if report.tasks else log.records,
        "first_step": log.first_step,
        "last_step": log.last_step,
        "loss_last": log.loss_last,
        "throughput": _throughput(log.throughput),
        "world_size": report.world_size,
        "usage": _usage(took),
        "billing_units": bill.billing_units if bill else None,
        "planned": _planned(report.planned),
        "unit": bill.unit if bill else None,
        "decided_by": bill.decided_by if bill else None,
        "billing_units_upper_bound": bill.upper_bound if bill else None,
        "job_id": report.job_id,
        "name": report.name,
        "site": report.site,
        "state": took.state if took else None,
        "exit_code": took.exit_code if took else None,
        "elapsed_seconds": took.elapsed_seconds if took else log.elapsed_seconds,
        "evidence": _evidence(report),
        "cause": report.cause,
        "advice": report.advice,
        "remarks": _remarks(report),
        "certificate": _certificate(report.certificate),
        **_more_of_log(log),
        **_efficiency(report, log),
        **_prices(report),
        "starts": report.starts,
        "tasks": [as_dict(task) for task in report.tasks],
        "warnings": list(report.warnings),
    }


def _records(report: Report) -> int:
    return report.log.records if report.log else 0


def _throughput(rate: Throughput | None) -> dict[str, Any]:
    if rate is None:
        return {"median": None, "p10": None, "p90": None, "unit": None, "scope": None}
    return {"median": rate.median, "p10": rate.p10, "p90": rate.p90, "unit": rate.unit, "scope": rate.scope}


def _usage(took: Accounting | None) -> dict[str, Any] | None:
    if took is None:
        return None
    return {
        "partition": took.usage.partition,
        "nodes": took.usage.nodes,
        "devices": took.usage.devices,
        "cores": took.usage.cores,
        "memory_gib": took.usage.memory_gib,
        "hours": took.usage.hours,
        "max_rss_gib": took.max_rss_gib,
    }


def _planned(planned: Planned | None) -> dict[str, Any] | None:
    if planned is None:
        return None
    return {
        "billing_units": planned.billing_units,
        "unit": planned.unit,
        "hours": planned.hours,
        "nodes": planned.nodes,
        "devices": planned.devices,
    }


def _evidence(report: Report) -> dict[str, Any] | None:
    found = report.evidence
    return {"line": found.line, "place": found.place, "rank": found.rank} if found else None


def _remarks(report: Report) -> list[dict[str, Any]]:
    return [
        {"kind": each.kind, "line": each.line, "place": each.place, "advice": report.table.get(each.kind)}
        for each in report.remarks
    ]


def _certificate(found: Certificate | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "verdict": found.verdict,
        "ranks": found.ranks,
        "faults": list(found.faults),
        "remarks": list(found.remarks),
    }


def _more_of_log(log: Log) -> dict[str, Any]:
    return {
        "format": log.format,
        "total_steps": log.total_steps,
        "max_step": log.max_step,
        "first_epoch": log.first_epoch,
        "last_epoch": log.last_epoch,
        "loss_first": log.loss_first,
        "loss_min": log.loss_min,
        "nan_steps": log.nan_steps,
        "first_seconds": log.first_seconds,
        "first_rate": log.first_rate,
        "step_seconds": log.step_seconds,
        "restarts": log.restarts,
        "new_epochs": log.new_epochs,
        "notes": dict(log.notes),
    }


def _efficiency(report: Report, log: Log) -> dict[str, Any]:
    share, peak = report.share_of_peak
    return {
        "tflops": log.tflops,
        "mfu": share,
        "mfu_peak_tflops": peak,
        "memory_gib": log.memory_gib,
        "tokens_per_second": _throughput(log.tokens_per_second)["median"],
    }


def _prices(report: Report) -> dict[str, Any]:
    steady, overall = per_million_tokens(report)
    found = gap(report)
    return {
        "gap": asdict(found) if found else None,
        "billing_units_per_million_tokens": steady,
        "billing_units_per_million_tokens_overall": overall,
    }


def as_csv(reports: Sequence[Report]) -> str:
    """One line per run below a line of column names; an array is a line per task."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for report in reports:
        for run in report.tasks or (report,):
            writer.writerow(_line(as_dict(run)))
    return text.getvalue()


def _line(values: dict[str, Any]) -> dict[str, Any]:
    usage, planned, evidence = values["usage"] or {}, values["planned"] or {}, values["evidence"] or {}
    own = {
        "throughput": values["throughput"]["median"],
        "throughput_unit": values["throughput"]["unit"],
        "nodes": usage.get("nodes"),
        "devices": usage.get("devices"),
        "planned_billing_units": planned.get("billing_units"),
        "evidence": evidence.get("line") if values["outcome"] != "completed" else None,
    }
    return {name: own.get(name, values.get(name)) for name in _COLUMNS}

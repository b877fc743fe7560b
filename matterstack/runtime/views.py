"""The views of the journal that anybody may rely on, from any SQLite tool; docs/history.md has them for users.

Names and columns stay as they are once released; new ones may come behind the others.
"""

from __future__ import annotations

from typing import Final


def _micros(column: str, name: str = "") -> str:
    """Return a time in µs since 1970 as ISO 8601 with milliseconds."""
    return f"strftime('%Y-%m-%dT%H:%M:%fZ', {column} / 1e6, 'unixepoch') AS {name or column}"


def _seconds(column: str, name: str = "") -> str:
    return f"strftime('%Y-%m-%dT%H:%M:%fZ', {column}, 'unixepoch') AS {name or column}"


# What an attempt's task asked for, where nobody recorded the use: in the spec that held when it was requested.
_ASKED: Final = """(SELECT json_extract(e.data, '$.spec.{0}') FROM events e
      WHERE e.subject = (SELECT id FROM subjects WHERE name = a.subject) AND e.at <= a.requested_at
      AND e.stream = (SELECT id FROM streams WHERE name = a.run)
      AND e.type IN (SELECT id FROM types WHERE name IN ('TaskAdded', 'TaskChanged'))
      ORDER BY e.position DESC LIMIT 1)"""
# Only a local attempt has a pid. Its memory nobody samples; what a signal ended was not waited for by its parent.
_UNKNOWN: Final = """CASE WHEN u.subject IS NOT NULL THEN u.unknown
      WHEN a.cpu_s IS NOT NULL THEN 'memory: of a local task nobody measures it'
      WHEN a.pid IS NOT NULL AND (a.signal IS NOT NULL OR a.reason IN ('TIMEOUT', 'CANCELLED'))
        THEN 'memory: of a local task nobody measures it; CPU time: processes that a signal ends are not all waited for'
      ELSE 'memory and CPU time: nobody recorded them' END"""
_USE_TIMES: Final = (
    ("submit", "u.submit, a.submitted_at / 1e6"),
    ("eligible", "u.eligible, NULL"),
    ("start", "u.start, a.started_at"),
    ('"end"', "u.end, a.ended_at"),
)


_TIMES: Final = ", ".join(
    [
        *(_micros(column) for column in ("requested_at", "submitted_at")),
        *(_seconds(column) for column in ("started_at", "ended_at")),
        _micros("recorded_at"),
    ]
)
_ATTEMPT: Final = (
    "run, task, state, attempt, reason, exit_code, signal, detail, profile, job_id, node, token,"
    f" {_TIMES}, cancel_requested"
)
# What `matterstack.history` asks in the same words: the stage of a row of ``tasks``, the counts of a row ``r`` of
# ``runs``, the waits of a row of ``attempts``, and the retry after a past attempt ``a``: the first one recorded about
# its task after its end, for a changed spec begins anew without one.
STAGE: Final = (
    "CASE WHEN state <> 'PENDING' THEN '' WHEN NOT requested THEN 'waiting' WHEN job_id IS NULL THEN 'submitting'"
    " ELSE 'queued' END"
)
_COUNT: Final = "coalesce((SELECT n FROM counts c WHERE c.run = r.run AND c.state = '{0}'), 0) AS {1}"
COUNTS: Final = ", ".join(_COUNT.format(word, word.lower()) for word in ("PENDING", "RUNNING", "COMPLETED", "FAILED"))
WAITS: Final = "started_at - submitted_at / 1e6 AS queue_wait_s, ended_at - started_at AS run_time_s"
RETRY: Final = (
    "JOIN events e ON e.position = (SELECT position FROM events"
    " WHERE subject = (SELECT id FROM subjects WHERE name = a.subject)"
    " AND stream = (SELECT id FROM streams WHERE name = a.run)"
    " AND type = (SELECT id FROM types WHERE name = 'TaskRetried') AND at >= a.recorded_at ORDER BY position LIMIT 1)"
)
_SUM: Final = "sum(sum(CASE state WHEN '{0}' THEN n ELSE 0 END)) OVER w AS {1}"
_SUMS: Final = ", ".join(_SUM.format(word, word.lower()) for word in ("PENDING", "RUNNING", "COMPLETED", "FAILED"))

VIEWS: Final[dict[str, str]] = {
    "history_runs": f"""
  SELECT run, name, {_micros("created_at")}, {_micros("started_at")}, {_micros("stopped_at")}, why, host, pid, {COUNTS}
  FROM runs r""",
    "history_tasks": f"""
  SELECT {_ATTEMPT}, {STAGE} AS stage, subject, ord AS place
  FROM tasks WHERE NOT dropped""",
    "history_attempts": f"SELECT {_ATTEMPT}, subject FROM attempts",
    "history_events": f"""
  SELECT e.position, {_micros("e.at", "time")}, s.name AS run, substr(u.name, length(s.name) + 2) AS task,
    t.name AS type, e.data, u.name AS subject
  FROM events e JOIN streams s ON s.id = e.stream JOIN subjects u ON u.id = e.subject JOIN types t ON t.id = e.type
  WHERE s.name NOT GLOB '*/requests'""",
    "history_waits": f"SELECT run, task, attempt, state, profile, node, {WAITS}, subject FROM attempts",
    "history_retries": f"""
  SELECT a.run, a.task, a.attempt, a.reason, a.exit_code, a.signal, a.detail, {_micros("e.at", "retried_at")},
    coalesce(json_extract(e.data, '$.why'), '') AS why, a.subject
  FROM past_attempts a {RETRY}
  WHERE a.state = 'FAILED'""",
    "history_counts": f"""
  SELECT run, strftime('%Y-%m-%dT%H:%M:%SZ', second + 1, 'unixepoch') AS time, {_SUMS}
  FROM (SELECT run, second, after AS state, n FROM moves UNION ALL SELECT run, second, before, -n FROM moves)
  GROUP BY run, second WINDOW w AS (PARTITION BY run ORDER BY second)""",
    "history_attempt_usage": f"""
  SELECT a.run, a.task, a.attempt, a.state, a.reason, a.profile, a.job_id,
    coalesce(u.source, iif(a.cpu_s IS NULL, 'events', 'record')) AS source,
    {_UNKNOWN} AS unknown,
    {", ".join(_seconds(f"coalesce({column})", name) for name, column in _USE_TIMES)},
    coalesce(u.elapsed_s, a.ended_at - a.started_at) AS elapsed_s, u.cpus, u.memory AS memory_b,
    u.max_rss AS max_rss_b, coalesce(u.cpu_s, a.cpu_s) AS cpu_s, coalesce(nullif(u.nodes, ''), a.node) AS nodes,
    coalesce(u.account, '') AS account,
    coalesce(u.partition, '') AS partition, coalesce(u.qos, '') AS qos, u.restarts,
    coalesce(a.exit_code, u.exit_code) AS exit_code, coalesce(a.signal, u.signal) AS signal,
    coalesce(u.cores, {_ASKED.format("cores")}, 1) AS asked_cores,
    iif(u.subject IS NOT NULL, u.asked_memory, {_ASKED.format("memory_gb")} * 1000000000) AS asked_memory_b,
    iif(u.subject IS NOT NULL, u.limit_s, {_ASKED.format("time_limit_minutes")} * 60.0) AS asked_s, a.subject
  FROM attempts a LEFT JOIN usage_rows u ON u.subject = a.subject AND u.attempt = a.attempt
  WHERE a.recorded_at IS NOT NULL""",
    "history_usage": "SELECT run, profile, state, attempts, run_us / 1e6 AS run_time_s FROM usage",
}

SCHEMA: Final = "".join(f"CREATE VIEW {name} AS {select};\n" for name, select in VIEWS.items())

#!/usr/bin/env python3
"""Reports the machine that it runs on as one line of JSON."""

import json
import os
import platform

with open("/proc/uptime", encoding="ascii") as uptime:
    up_hours = float(uptime.read().split()[0]) / 3600

print(
    json.dumps(
        {
            "instance": os.environ.get("SSHJOB_INSTANCE", platform.node()),
            "kernel": platform.release(),
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "up_hours": round(up_hours, 1),
        }
    )
)

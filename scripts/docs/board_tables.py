"""The page of boards: what each built-in device profile says."""

from __future__ import annotations

from edgewright.sizes import format_bytes
from edgewright_profiles import DeviceProfile, list_profiles, load_profile

INTRODUCTION = """# Supported boards

This page is made from the device profiles in `device_profiles/edgewright_profiles/`.
`edgewright profiles show ID` prints every figure with its source and how far to trust it.
No figure was measured by us on a Jetson; [what has not run](../hardware.md) says more.
"""


def page() -> str:
    """The whole page in Markdown."""
    profiles = [load_profile(name) for name in list_profiles() if name != "this-host"]
    return "\n".join([INTRODUCTION, _overview(profiles), *(_board(profile) for profile in profiles)])


def _overview(profiles: list[DeviceProfile]) -> str:
    rows = [
        f"| [{profile.name}](#{profile.id}) | `{profile.id}` | {format_bytes(profile.memory.seen_bytes.value)} "
        f"| {format_bytes(profile.budget_bytes())} | {profile.bandwidth_bytes_per_second() / 1e9:.0f} GB/s "
        f"| {', '.join(engine.kind for engine in profile.engines if engine.supported.value) or 'none'} |"
        for profile in profiles
    ]
    head = "| board | profile | memory seen | budget | bandwidth | engines |\n|---|---|--:|--:|--:|---|"
    return "\n".join([head, *rows, ""])


def _board(profile: DeviceProfile) -> str:
    lines = [f"## {profile.name} {{ #{profile.id} }}\n"]
    lines.append(f"- Budget: {format_bytes(profile.budget_bytes())} without a desktop, "
                 f"{format_bytes(profile.budget_bytes(desktop=True))} with one.")  # fmt: skip
    lines.append(f"- Power modes: {', '.join(profile.power_mode_names)}; figures are for "
                 f"{profile.default_power_mode}.")  # fmt: skip
    for engine in profile.engines:
        runs = "runs" if engine.supported.value else "does not run"
        lines.append(f"- {engine.kind} {runs}: {engine.detail}.")
    if profile.jetpacks:
        versions = "; ".join(
            f"JetPack {jetpack.version} (L4T {jetpack.l4t}, Python {jetpack.python.value})"
            for jetpack in profile.jetpacks
        )
        lines.append(f"- {versions}.")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    print(page())

"""A strict reader of the text format of Prometheus 0.0.4 and of what promtool's `check metrics` asks of names: a page that passes here is one that
Prometheus takes and promtool has nothing to say about. promtool itself is asked, too, where it is installed.
"""

import math
import re
import shutil
import subprocess

NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")  # without ':', which is for recording rules
LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
TYPES = ("counter", "gauge", "histogram", "summary", "untyped")
# What promtool wants as seconds, bytes and ratios without a prefix.
UNITS = re.compile(r"_(milliseconds|microseconds|nanoseconds|minutes|hours|days|kilobytes|megabytes|kibibytes|mebibytes|percent|bits|ms|us|ns|kb|mb)(_|\Z)")


class Family:
    def __init__(self, name):
        self.name, self.help, self.type, self.samples = name, None, None, {}

    def value(self, suffix="", **labels):
        return self.samples[(self.name + suffix, frozenset(labels.items()))]

    def matching(self, suffix="", **labels):
        """[(labels, value)] of the samples that have at least these labels."""
        wanted = set(labels.items())
        return [(dict(has), value) for (name, has), value in self.samples.items() if name == self.name + suffix and wanted <= has]

    def sum(self, suffix="", **labels):
        return sum(value for _labels, value in self.matching(suffix, **labels))


class Families(dict):
    """By name. A family without samples is not on the page, and counts as one with none."""

    def __missing__(self, name):
        return Family(name)


def parse(text):
    """Families. AssertionError names the line that is wrong."""
    assert text.endswith("\n"), "no newline at the end"
    families, family = Families(), None
    for number, line in enumerate(text[:-1].split("\n"), 1):
        where = f"line {number}: {line!r}"
        if line.startswith("# HELP "):
            name, _space, words = line[len("# HELP "):].partition(" ")
            assert NAME.match(name) and name not in families, where
            assert words and not re.search(r"\\(?![\\n])", words), where
            family = families[name] = Family(name)
            family.help = words
        elif line.startswith("# TYPE "):
            name, kind = line[len("# TYPE "):].split(" ")
            assert family and family.name == name and family.type is None and not family.samples and kind in TYPES, where
            family.type = kind
        else:
            name, labels, value = sample(line, where)
            assert family and family.type, where
            suffixes = ("_bucket", "_sum", "_count") if family.type == "histogram" else ("",)
            assert name in [family.name + suffix for suffix in suffixes], where
            key = (name, frozenset(labels.items()))
            assert key not in family.samples, f"{where}: twice"
            family.samples[key] = value
    for family in families.values():
        check(family)
    return families


def sample(line, where):
    name, rest = re.match(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(.*)\Z", line, re.S).groups()
    labels = {}
    if rest.startswith("{"):
        rest = rest[1:]
        while not rest.startswith("}"):
            match = re.match(r'([a-zA-Z0-9_]+)="((?:[^"\\\n]|\\[\\"n])*)"(,?)', rest)
            assert match and LABEL.match(match.group(1)) and not match.group(1).startswith("__") and match.group(1) not in labels, where
            assert match.group(3) or rest[match.end():].startswith("}"), where
            labels[match.group(1)] = re.sub(r"\\(.)", lambda m: "\n" if m.group(1) == "n" else m.group(1), match.group(2))
            rest = rest[match.end():]
        rest = rest[1:]
    match = re.match(r" ([+-]?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|Inf|NaN|Nan))\Z", rest)
    assert match, where
    return name, labels, float(match.group(1))


def check(family):
    assert family.help and family.help.endswith("."), f"{family.name}: a sentence helps"
    assert family.type and family.samples, f"{family.name}: no type or no sample"
    assert family.name == family.name.lower() and not UNITS.search(family.name), f"{family.name}: a name is in snake case, in base units"
    assert family.name.endswith("_total") == (family.type == "counter"), f"{family.name}: _total is for counters, and all of them"
    assert not re.search(r"_(count|sum|bucket|info)\Z", family.name) or family.name.endswith("_info"), family.name
    assert not re.search(r"(\A|_)(counter|gauge|histogram|summary)(_|\Z)", family.name), f"{family.name}: the type is no part of it"
    if family.type == "counter":
        assert all(value >= 0 for value in family.samples.values()), family.name
    if family.type == "histogram":
        check_histogram(family)


def check_histogram(family):
    series = {}
    for (name, labels), value in family.samples.items():
        labels = dict(labels)
        bound = labels.pop("le", None)
        assert (bound is not None) == name.endswith("_bucket"), name
        parts = series.setdefault(frozenset(labels.items()), {"buckets": []})
        if bound is None:
            parts[name[len(family.name):]] = value
        else:
            parts["buckets"].append((float(bound), value))
    for labels, parts in series.items():
        buckets = parts["buckets"]
        assert buckets == sorted(buckets) and [value for _bound, value in buckets] == sorted(value for _bound, value in buckets), labels
        assert math.isinf(buckets[-1][0]) and buckets[-1][1] == parts["_count"] and "_sum" in parts, labels


def promtool(text):
    """What `promtool check metrics` complains about; None where it is not installed."""
    program = shutil.which("promtool")
    if program is None:
        return None
    done = subprocess.run([program, "check", "metrics"], input=text.encode(), capture_output=True)
    return (done.stdout + done.stderr).decode() if done.returncode else ""

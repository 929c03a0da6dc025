"""Reading the interface out of the source: protos through protoc's descriptors, the link's constants, the table of error codes, the
variables and keys of the configuration, the files of a module's folder.

    python3 tests/interface/golden.py --update     adds what is new to the golden files; what is written there already is never changed
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(os.environ.get("BULKHEAD_SOURCE") or pathlib.Path(__file__).resolve().parents[2])
HERE = pathlib.Path(__file__).resolve().parent
PROTO = SOURCE / "proto"


def protos():
    """{rpcs, messages, enums} of proto/bulkhead, from what protoc makes of it."""
    names = sorted(str(path.relative_to(PROTO)) for path in (PROTO / "bulkhead").rglob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["protoc", f"-I{PROTO}", "-o", f"{folder}/set", *names], check=True)
        subprocess.run(["protoc", f"-I{PROTO}", f"--python_out={folder}", "bulkhead/admin/v1/options.proto"], check=True)
        sys.path.insert(0, folder)
        from bulkhead.admin.v1 import options_pb2
        sys.path.pop(0)
        from google.protobuf import descriptor_pb2
        files = descriptor_pb2.FileDescriptorSet.FromString(pathlib.Path(folder, "set").read_bytes()).file
    field_type = descriptor_pb2.FieldDescriptorProto.Type.Name

    rpcs, messages, enums = {}, {}, {}

    def enum(prefix, descriptor):
        enums[prefix + descriptor.name] = {value.name: value.number for value in descriptor.value}

    def message(prefix, descriptor):
        if descriptor.options.map_entry:
            return
        messages[prefix + descriptor.name] = {
            field.name: [field.number, field.type_name.lstrip(".") or field_type(field.type)[5:].lower(),
                         *(["repeated"] if field.label == field.LABEL_REPEATED else [])] for field in descriptor.field}
        for nested in descriptor.nested_type:
            message(f"{prefix}{descriptor.name}.", nested)
        for nested in descriptor.enum_type:
            enum(f"{prefix}{descriptor.name}.", nested)

    for file in files:
        prefix = file.package + "."
        for descriptor in file.message_type:
            message(prefix, descriptor)
        for descriptor in file.enum_type:
            enum(prefix, descriptor)
        for service in file.service:
            for method in service.method:
                told = {"request": method.input_type.lstrip("."), "response": method.output_type.lstrip(".")}
                if method.client_streaming or method.server_streaming:
                    told["streams"] = [side for side, streams in (("client", method.client_streaming), ("server", method.server_streaming)) if streams]
                options = method.options
                if options.HasExtension(options_pb2.permission):
                    told["permission"] = options.Extensions[options_pb2.permission]
                if options.HasExtension(options_pb2.access):
                    told["access"] = options_pb2.Access.Enum.Name(options.Extensions[options_pb2.access])
                rest = [f"{route.method} {route.path}" + (f"?{route.when}=true" if route.when else "") for route in options.Extensions[options_pb2.rest]]
                if rest:
                    told["rest"] = rest
                rpcs[f"{prefix}{service.name}.{method.name}"] = told
    return {"rpcs": rpcs, "messages": messages, "enums": enums}


def link():
    """The numbers of the data link, from its header."""
    text = re.sub(r"//[^\n]*", "", (PROTO / "bulkhead/link/frame.h").read_text())
    constants = {}
    for name, value in re.findall(r"inline constexpr \w+ (k\w+) = ([^;]+);", text):
        product = 1
        for factor in value.split("*"):
            product *= int(factor)
        constants[name] = product
    for kind, body in re.findall(r"enum (?:class )?(\w+) : \w+ \{(.*?)\};", text, re.S):
        number = -1
        for name, value in re.findall(r"(k\w+)\s*(?:=\s*(\d+))?\s*(?:,|$)", body):
            number = int(value) if value else number + 1
            constants[f"{kind}.{name}"] = number
    return constants


def errors():
    """{public error code: HTTP status}, from the one table."""
    text = (SOURCE / "supervisor/base/status.cc").read_text()
    return {code: int(http) for code, http in re.findall(r'\{"([A-Z_]+)", Code::k\w+, (\d+),', text)}


def settings():
    """[(key of the file, variable, option)], from the one table."""
    text = (SOURCE / "supervisor/config.cc").read_text()
    found = re.findall(r'\{"([\w.]+)", "(BULKHEAD_\w+)", "(--[\w-]+)",', text)
    assert found, "supervisor/config.cc has no table of settings any more"
    return found


def variables():
    """{variable: [key of the file, option]}, as far as there are such."""
    text = (SOURCE / "supervisor/config.cc").read_text()
    prefix = re.search(r'kFlagPrefix\[\] = "(\w+)"', text).group(1)
    alone = re.search(r'known\{((?:"BULKHEAD_\w+"(?:, )?)+)\};', text).group(1)
    known = {name: [] for name in re.findall(r"\w+", alone)}
    known["BULKHEAD_CONFIG"] = ["--config"]
    known[prefix + "<NAME>"] = ["flags.<name>"]
    secret = re.search(r'kSecretVariable\[\] = "(\w+)";\s*constexpr char kSecretEnding\[\] = "(\w+)"', (SOURCE / "supervisor/config_clients.cc").read_text())
    known["<NAME>".join(secret.groups())] = ["clients.<name>.auth"]
    notifications = (SOURCE / "supervisor/config_notifications.cc").read_text()
    part = {name: re.search(rf'{name}\[\] = "(\w+)"', notifications).group(1)
            for name in ("kPasswordVariable", "kWebhookVariable", "kUrlEnding", "kWebhookSecretEnding", "kHeaderMiddle")}
    known[part["kPasswordVariable"]] = ["notifications.smtp.password"]
    for ending, key in ((part["kUrlEnding"], "url"), (part["kWebhookSecretEnding"], "secret"), (part["kHeaderMiddle"] + "<HEADER>", "headers")):
        known[part["kWebhookVariable"] + "<NAME>" + ending] = [f"notifications.webhooks.<name>.{key}"]
    for key, variable, option in settings():
        known[variable] = [key, option]
    return known


def config_keys():
    """Every key of the configuration file, <name> for names that an operator chooses."""
    text = (SOURCE / "supervisor/config_file.cc").read_text()
    maps = re.search(r'known\{((?:"\w+"(?:, )?)+)\};', text).group(1)
    members = re.search(r'DidYouMean\(member, \{((?:"\w+"(?:, )?)+)\}\)', text).group(1)
    keys = {key for key, _variable, _option in settings()} | {f"{name}.<name>" for name in re.findall(r"\w+", maps)} - {"modules.<name>"}
    auth = (SOURCE / "supervisor/config_auth.cc").read_text()
    tables = {name: re.findall(r'"(\w+)"', re.search(rf"{name}\{{(.*?)\}};", auth).group(1)) for name in ("kJwtKeys", "kKeyKeys")}
    keys |= {f"auth.jwt.{name}" for name in tables["kJwtKeys"] if name != "keys"} | {f"auth.jwt.keys.{name}" for name in tables["kKeyKeys"]}
    clients = (SOURCE / "supervisor/config_clients.cc").read_text()
    for table, prefix in (("kClientKeys", ""), ("kClientAuthKeys", "auth."), ("kBreakerKeys", "breaker.")):
        names = re.findall(r'"(\w+)"', re.search(rf"{table}\{{(.*?)\}};", clients, re.S).group(1))
        keys |= {f"clients.<name>.{prefix}{name}" for name in names if name not in ("auth", "breaker")}
    keys = keys - {"clients.<name>"} | {"clients.<name>.headers"}
    notifications = (SOURCE / "supervisor/config_notifications.cc").read_text()
    for name, prefix in (("kSmtpKeys", "smtp"), ("kWebhookKeys", "webhooks.<name>")):
        members_of = re.findall(r'"(\w+)"', re.search(rf"{name}\{{(.*?)\}};", notifications).group(1))
        keys |= {f"notifications.{prefix}.{member}" for member in members_of}
    return keys | {f"modules.<name>.{member}" for member in re.findall(r"\w+", members)}


def module_folder():
    """What the supervisor looks for in a module's folder."""
    packages = (SOURCE / "supervisor/lifecycle/packages.cc").read_text()
    manifest = (SOURCE / "supervisor/manifest/manifest.cc").read_text() + (SOURCE / "supervisor/manifest/manifest.h").read_text()
    names = re.search(r'const char\* name : \{("manifest\.json"[^}]*)\}', packages).group(1)
    return {"manifest": re.findall(r'"([^"]+)"', names),
            "entry": re.search(r'entry\.value_or\(absl::StrCat\("([^"]+)", manifest\.name\)\)', manifest).group(1) + "<name>",
            "migrations": re.search(r'migrations_dir = "([^"]+)"', manifest).group(1)}


FROM_SOURCE = {"protos.json": protos, "link.json": link, "errors.json": errors, "variables.json": variables, "module_folder.json": module_folder}


def stored(name):
    path = HERE / name
    return json.loads(path.read_text()) if path.exists() else {}


def missing_and_changed(golden, real, where=""):
    """What the golden file says and the source no longer does: sentences."""
    wrong = []
    for key, value in golden.items():
        if key not in real:
            wrong.append(f"{where}{key} is gone")
        elif isinstance(value, dict):
            wrong += missing_and_changed(value, real[key], f"{where}{key} / ")
        elif value != real[key]:
            wrong.append(f"{where}{key} was {value} and is {real[key]}")
    return wrong


def unrecorded(golden, real, where=""):
    """What the source says and the golden file doesn't know yet."""
    new = []
    for key, value in real.items():
        if key not in golden:
            new.append(f"{where}{key}")
        elif isinstance(value, dict):
            new += unrecorded(golden[key], value, f"{where}{key} / ")
    return new


def merge(golden, real):
    for key, value in real.items():
        if isinstance(value, dict):
            merge(golden.setdefault(key, {}), value)
        else:
            golden.setdefault(key, value)
    return golden


def dump(document, depth=0):
    """JSON with one line per leaf table, so that a change is a readable diff."""
    if not isinstance(document, dict) or depth == 2:
        return json.dumps(document)
    pad = "  " * (depth + 1)
    lines = [f"{pad}{json.dumps(key)}: {dump(value, depth + 1)}" for key, value in document.items()]
    return "{\n" + ",\n".join(lines) + "\n" + "  " * depth + "}" if lines else "{}"


def update():
    for name, read in FROM_SOURCE.items():
        (HERE / name).write_text(dump(merge(stored(name), read())) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] != ["--update"]:
        sys.exit(__doc__)
    update()

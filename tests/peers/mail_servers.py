"""Runs one of the mail servers that Debian has, unpacked and not installed, on loopback.

    python3 tests/peers/mail_servers.py exim|opensmtpd|postfix|sendmail PORT DIRECTORY

It takes mail for everybody but gone@example.org and sends nothing on. Servers want users and directories of their
own; they get them in a mount namespace, where nothing of the machine changes: as root, or with Debian's package
`uidmap`. It ends when whoever started it does.
"""

import ctypes
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent / ".venv" / "mail-servers"
LIBRARIES = ":".join(str(ROOT / path) for path in ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib/postfix"])
USERS = ["Debian-exim", "opensmtpd", "opensmtpq", "postfix", "postdrop", "smmsp", "smmta"]
# Of nobody on the machine, and within the range that a user may map.
FIRST_ID = 60_100

EXIM = """
exim_user = Debian-exim
exim_group = Debian-exim
primary_hostname = localhost
spool_directory = {directory}/spool
log_file_path = {directory}/%slog
pid_file_path = {directory}/pid
keep_environment =
queue_only = true
tls_advertise_hosts = *
tls_certificate = {directory}/certificate
tls_privatekey = {directory}/key
acl_smtp_rcpt = recipients
begin acl
recipients:
  deny message = no such mailbox
       recipients = gone@example.org
  accept
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if and {{{{eq{{$auth2}}{{ci}}}}{{eq{{$auth3}}{{secret}}}}}}}}
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = <| Username: | Password:
  server_condition = ${{if and {{{{eq{{$auth1}}{{ci}}}}{{eq{{$auth2}}{{secret}}}}}}}}
"""

OPENSMTPD = """
listen on 127.0.0.1 port {port} hostname localhost
action "keep" relay host smtp://127.0.0.1:1
match from any for rcpt-to "gone@example.org" reject
match from any for any action "keep"
"""

POSTFIX = """
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
daemon_directory = {root}/usr/lib/postfix/sbin
command_directory = {root}/usr/sbin
shlib_directory = {root}/usr/lib/postfix
meta_directory = {directory}
import_environment = MAIL_CONFIG LD_LIBRARY_PATH
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = localhost.localdomain
mydestination =
mynetworks = 127.0.0.0/8
alias_maps =
local_recipient_maps =
maillog_file = {directory}/data/log
maillog_file_prefixes = {directory}
defer_transports = smtp
smtpd_peername_lookup = no
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions = check_recipient_access inline:{{gone@example.org=REJECT}}, permit
smtpd_tls_security_level = may
smtpd_tls_cert_file = {directory}/certificate
smtpd_tls_key_file = {directory}/key
"""
SERVICES = """
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
anvil unix - - n - 1 anvil
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""

SENDMAIL = """divert(0)dnl
OSTYPE(`linux')dnl
define(`QUEUE_DIR', `{directory}/queue')dnl
define(`STATUS_FILE', `')dnl
define(`ALIAS_FILE', `')dnl
define(`HELP_FILE', `')dnl
define(`confPID_FILE', `{directory}/pid')dnl
define(`confDELIVERY_MODE', `q')dnl
define(`confDOMAIN_NAME', `localhost.localdomain')dnl
define(`confTO_IDENT', `0')dnl
dnl However busy this machine is.
define(`confREFUSE_LA', `1000')dnl
define(`confQUEUE_LA', `1000')dnl
define(`confSERVER_CERT', `{directory}/certificate')dnl
define(`confSERVER_KEY', `{directory}/key')dnl
define(`confCACERT_PATH', `{directory}')dnl
define(`confCACERT', `{directory}/authority')dnl
FEATURE(`no_default_msa')dnl
FEATURE(`accept_unresolvable_domains')dnl
FEATURE(`promiscuous_relay')dnl
DAEMON_OPTIONS(`Name=MTA, Addr=127.0.0.1, Port={port}')dnl
MAILER(`smtp')dnl
LOCAL_RULESETS
SLocal_check_rcpt
R$*gone@example.org$*\t$#error $@ 5.1.1 $: "550 no such mailbox"
"""


def main() -> None:
    name, port, directory = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]).resolve()
    if os.environ.get("MAIL_SERVER_NAMESPACE") != "entered":
        parent = os.getppid()
        map_users = [] if os.geteuid() == 0 else ["--map-root-user", "--map-auto"]
        command = ["unshare", "--mount", "--kill-child", "--pid", "--fork", *map_users, sys.executable, *sys.argv]
        environment = {**os.environ, "MAIL_SERVER_NAMESPACE": "entered"}
        server = subprocess.Popen(command, env=environment, preexec_fn=end_with_parent)
        while server.poll() is None and os.getppid() == parent:
            time.sleep(0.2)
        server.kill()
        sys.exit(server.wait())

    numbered = list(enumerate(USERS, FIRST_ID))
    files = {
        "passwd": "".join(f"{user}:x:{number}:{number}::/nonexistent:/bin/false\n" for number, user in numbered),
        "group": "".join(f"{user}:x:{number}:\n" for number, user in numbered),
        # Without a full name of this machine, sendmail waits a minute for one.
        "hosts": f"127.0.0.1 localhost.localdomain localhost {socket.gethostname()}\n",
    }
    for file, more in files.items():
        (directory / file).write_text(more + pathlib.Path("/etc", file).read_text())
        subprocess.run(["mount", "--bind", directory / file, pathlib.Path("/etc", file)], check=True)
    shutil.copy(HERE / "tls" / "localhost.pem", directory / "certificate")
    shutil.copy(HERE / "tls" / "localhost.test.key", directory / "key")
    shutil.copy(HERE / "tls" / "authority.pem", directory / "authority")
    values = {"port": port, "directory": directory, "root": ROOT}
    command = {"exim": exim, "opensmtpd": opensmtpd, "postfix": postfix, "sendmail": sendmail}[name](directory, values)
    environment = {"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": LIBRARIES, "MAIL_CONFIG": str(directory)}
    # This process is the first of its namespace: when it ends, all ends that the server has started.
    server = subprocess.Popen([str(word) for word in command], env=environment)
    sys.exit(server.wait())


def end_with_parent() -> None:
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def identifier(user: str) -> int:
    return FIRST_ID + USERS.index(user)


def folder(path: pathlib.Path, user: str | None = None, mode: int = 0o755, group: str | None = None) -> None:
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(mode)
    os.chown(path, identifier(user) if user else 0, identifier(group) if group else -1)


def exim(directory: pathlib.Path, values: dict) -> list:
    config = directory / "exim.conf"
    config.write_text(EXIM.format(**values))
    (directory / "key").chmod(0o640)
    os.chown(directory / "key", 0, identifier("Debian-exim"))
    os.chown(directory, identifier("Debian-exim"), -1)
    folder(directory / "spool", "Debian-exim")
    return [ROOT / "usr/sbin/exim4", "-C", config, "-bdf", "-oX", f"127.0.0.1.{values['port']}"]


def opensmtpd(directory: pathlib.Path, values: dict) -> list:
    config = directory / "smtpd.conf"
    config.write_text(OPENSMTPD.format(**values))
    for place in ["/run", "/var/spool", "/var/lib"]:
        subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    folder(pathlib.Path("/var/lib/opensmtpd/empty"))
    folder(pathlib.Path("/var/spool/smtpd"), mode=0o711)
    return [ROOT / "usr/sbin/smtpd", "-d", "-f", config]


def postfix(directory: pathlib.Path, values: dict) -> list:
    (directory / "main.cf").write_text(POSTFIX.format(**values))
    (directory / "master.cf").write_text(SERVICES.format(**values))
    (directory / "key").chmod(0o600)
    queue = directory / "queue"
    folder(queue)
    folder(directory / "data", "postfix")
    folder(queue / "pid")
    for name in ["active", "bounce", "corrupt", "defer", "deferred", "hold", "incoming", "private", "saved", "trace"]:
        folder(queue / name, "postfix", 0o700)
    folder(queue / "public", "postfix", 0o710, "postdrop")
    folder(queue / "maildrop", "postfix", 0o730, "postdrop")
    return [ROOT / "usr/lib/postfix/sbin/master", "-c", directory, "-d"]


def sendmail(directory: pathlib.Path, values: dict) -> list:
    macros = ROOT / "usr/share/sendmail/cf"
    # It reads no key below a directory that everybody may write to, as /tmp is.
    safe = pathlib.Path("/mnt")
    subprocess.run(["mount", "--bind", directory, safe], check=True)
    (directory / "server.mc").write_text(SENDMAIL.format(**{**values, "directory": safe}))
    (directory / "key").chmod(0o600)
    command = [ROOT / "usr/bin/m4", f"-D_CF_DIR_={macros}/", macros / "m4/cf.m4", directory / "server.mc"]
    environment = {**os.environ, "LD_LIBRARY_PATH": LIBRARIES}
    config = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
    (directory / "server.cf").write_bytes(config.stdout)
    folder(directory / "queue", mode=0o700)
    server = ROOT / "usr/libexec/sendmail/sendmail"
    # Run with a group's rights, it would not look where its libraries are.
    server.chmod(0o755)
    return [server, "-C", safe / "server.cf", "-bD"]


if __name__ == "__main__":
    main()

"""A mail server on loopback that refuses what it is told to, and keeps each mail in a file.

    .venv/aiosmtpd/bin/python tests/peers/mail_server.py --port 2525 --directory mails \
        --login ci:secret --refuse 'bob@example.org=451 4.7.1 greylisted'

Each file is named by its mail's number and holds the envelope beside the mail. It ends when whoever started it
does.
"""

import argparse
import asyncio
import json
import os
import pathlib
import ssl

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("--directory", type=pathlib.Path, required=True, help="where mails are kept")
    arguments.add_argument("--certificate", help="of STARTTLS, without which nothing else is taken then")
    arguments.add_argument("--key")
    arguments.add_argument("--login", metavar="USER:PASSWORD", help="without it nobody needs to log in")
    arguments.add_argument("--refuse", action="append", default=[], metavar="ADDRESS=REPLY")
    arguments.add_argument("--size", type=int, help="of a mail at most")
    arguments.add_argument("--silent", action="store_true", help="take connections and say nothing")
    asyncio.run(serve(arguments.parse_args()))


async def serve(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    if options.silent:
        await asyncio.start_server(lambda reader, writer: reader.read(), "127.0.0.1", options.port)
    else:
        tls = None
        if options.certificate:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(options.certificate, options.key)

        def session() -> SMTP:
            return SMTP(
                Mails(options),
                hostname="localhost",
                data_size_limit=options.size,
                tls_context=tls,
                require_starttls=tls is not None,
                auth_required=options.login is not None,
                auth_require_tls=tls is not None,
                authenticator=lambda server, session, envelope, mechanism, login: authenticate(options, login),
                loop=loop,
            )

        await loop.create_server(session, "127.0.0.1", options.port)
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(0.5)


def authenticate(options: argparse.Namespace, login: LoginPassword) -> AuthResult:
    given = f"{login.login.decode()}:{login.password.decode()}"
    # Unless it is marked as not handled, a failure is one that the server says nothing about.
    return AuthResult(success=given == options.login, handled=False)


class Mails:
    def __init__(self, options: argparse.Namespace) -> None:
        self.directory = options.directory
        self.refusals = dict(refusal.split("=", 1) for refusal in options.refuse)

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address in self.refusals:
            return self.refusals[address]
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server, session, envelope):
        number = len(list(self.directory.glob("*.json")))
        mail = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "encrypted": session.ssl is not None,
            "authenticated": session.authenticated,
            "content": envelope.original_content.decode("ascii"),
        }
        file = self.directory / f"{number:04}"
        file.write_text(json.dumps(mail))
        # Whole at once for whoever looks for it.
        file.rename(file.with_suffix(".json"))
        return f"250 2.0.0 queued as {number:04}"


if __name__ == "__main__":
    main()

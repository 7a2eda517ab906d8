"""TLS proxy in front of a server without TLS. Clients need a certificate. Arguments: its own port, the port of the server,
and a PEM file that is certificate, key and root in one."""

import asyncio
import ssl
import sys

port, server_port, pem = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(pem)
context.load_verify_locations(pem)
context.verify_mode = ssl.CERT_REQUIRED


async def carry(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.close()


async def serve(reader, writer):
    inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", server_port)
    await asyncio.gather(carry(reader, inner_writer), carry(inner_reader, writer))


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", port, ssl=context)
    await server.serve_forever()


asyncio.run(main())

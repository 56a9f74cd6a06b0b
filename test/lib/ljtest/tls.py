"""tls.py - a certificate authority of the tests' own, made with the openssl command."""

import os
import ssl
import subprocess

from . import harness

KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


class Authority:
    """Makes a CA in `folder` (`ca_file` is what clients must trust) and certificates signed by it."""

    def __init__(self, folder):
        os.makedirs(folder, exist_ok=True)
        self.folder = folder
        self.ca_file = os.path.join(folder, "ca.pem")
        self._ca_key = os.path.join(folder, "ca.key")
        self._made = {}
        self._openssl("req", "-x509", *KEY, "-keyout", self._ca_key, "-out", self.ca_file, "-days", "30",
                      "-subj", "/CN=litejoin test authority")

    @staticmethod
    def _openssl(*arguments):
        done = subprocess.run(["openssl", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        harness.check(done.returncode == 0, "openssl %s: %s" % (arguments[0], done.stdout[-400:]))

    def certificate(self, names=("127.0.0.1", "localhost"), days=30):
        """(certificate file, key file) for these host names and addresses; days=0 makes one that has expired already."""
        wanted = (tuple(names), days)
        if wanted not in self._made:
            stem = os.path.join(self.folder, "server%d" % len(self._made))
            kinds = ["%s:%s" % ("IP" if name.replace(".", "").isdigit() or ":" in name else "DNS", name) for name in names]
            with open(stem + ".ext", "w") as file:
                file.write("subjectAltName=%s\nextendedKeyUsage=serverAuth\n" % ",".join(kinds))
            self._openssl("req", "-new", *KEY, "-keyout", stem + ".key", "-out", stem + ".csr", "-subj", "/CN=" + names[0])
            self._openssl("x509", "-req", "-in", stem + ".csr", "-CA", self.ca_file, "-CAkey", self._ca_key,
                          "-CAcreateserial", "-days", str(days or -1), "-extfile", stem + ".ext", "-out", stem + ".pem")
            self._made[wanted] = (stem + ".pem", stem + ".key")
        return self._made[wanted]

    def server_context(self, names=("127.0.0.1", "localhost"), days=30):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.certificate(names, days))
        return context

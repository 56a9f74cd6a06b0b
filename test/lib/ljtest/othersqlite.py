"""othersqlite.py - Python's sqlite3 module on another SQLite than the system's: the one better-sqlite3 carries, as a library.

    env = othersqlite.environment()               the newer SQLite as it is
    env = othersqlite.environment(codec=True)     the same, encrypting: see CODEC

A process started with that environment has it, and loads the extension into it like any other. The amalgamation comes from
.cache/node (test/clients/install_node); without it the tests that want it are skipped.
"""

import hashlib
import os
import subprocess
import tempfile

from . import harness

_TOP = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", ".."))
FOLDERS = [os.path.join(os.environ.get("LJ_NODE_CACHE") or os.path.join(_TOP, ".cache", "node"), "node_modules",
                        "better-sqlite3", "deps", "sqlite3")]
FLAGS = ("-O0", "-shared", "-fPIC", "-w", "-DSQLITE_THREADSAFE=1", "-DSQLITE_USE_URI=1", "-DSQLITE_ENABLE_FTS5",
         "-DSQLITE_ENABLE_COLUMN_METADATA", "-DSQLITE_ENABLE_UNLOCK_NOTIFY", "-Wl,-soname,libsqlite3.so.0")

# An encryption in SQLite's pager, at the places where SQLCipher and SEE have theirs: pages are ciphertext for everything below,
# the frame checksums of the WAL are over ciphertext, and no header can be read. That the cipher is a toy does not matter here.
CODEC = (
    ("static int readDbPage(PgHdr *pPg){",
     """static void lj_xor(unsigned pgno, unsigned char *page, int n){
  int i;
  for(i=0; i<n; i++) page[i] ^= (unsigned char)(0x5b + i*13 + pgno*29 + (i>>7));
}
static void *lj_ciphertext(unsigned pgno, const void *page, int n){
  static __thread unsigned char copy[65536];
  memcpy(copy, page, n);
  lj_xor(pgno, copy, n);
  return copy;
}
static int readDbPage(PgHdr *pPg){"""),
    ("  if( pPg->pgno==1 ){\n    if( rc ){\n      /* If the read is unsuccessful",
     "  if( rc==SQLITE_OK ) lj_xor(pPg->pgno, pPg->pData, pPager->pageSize);\n"
     "  if( pPg->pgno==1 ){\n    if( rc ){\n      /* If the read is unsuccessful"),
    ("      pData = pList->pData;\n\n      /* Write out the page data. */",
     "      pData = lj_ciphertext(pgno, pList->pData, pPager->pageSize);\n"),
    ("  pData = pPage->pData;\n  walEncodeFrame(", "  pData = lj_ciphertext(pPage->pgno, pPage->pData, p->szPage);\n"
                                                 "  walEncodeFrame("),
    ("        pData = p->pData;\n        rc = sqlite3OsWrite(pWal->pWalFd",
     "        pData = lj_ciphertext(p->pgno, p->pData, szPage);\n        rc = sqlite3OsWrite(pWal->pWalFd"),
)


def _source():
    for folder in FOLDERS:
        path = os.path.join(folder, "sqlite3.c")
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                return file.read()
    raise harness.Skip("no SQLite source in .cache/node (test/clients/install_node puts it there)")


def library_folder(codec=False):
    """The folder with libsqlite3.so.0, built on first use into .cache/ljtest."""
    text = _source()
    for old, new in CODEC if codec else ():
        harness.check_equal(text.count(old), 1, "places for the codec in this SQLite: %r" % old[:50])
        text = text.replace(old, new)
    digest = hashlib.sha256((text + " ".join(FLAGS)).encode()).hexdigest()[:12]
    folder = os.path.join(_TOP, ".cache", "ljtest", "sqlite-%s%s" % ("codec-" if codec else "", digest))
    library = os.path.join(folder, "libsqlite3.so.0")
    if not os.path.exists(library):
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            source = os.path.join(work, "sqlite3.c")
            with open(source, "w", encoding="utf-8") as file:
                file.write(text)
            fresh = os.path.join(work, "fresh.so")
            subprocess.run([os.environ.get("CC", "cc"), *FLAGS, "-o", fresh, source, "-lm", "-lpthread", "-ldl"], check=True)
            os.rename(fresh, library)
    return folder


def environment(codec=False):
    """Environment variables for a child process."""
    return {"LD_LIBRARY_PATH": library_folder(codec)}


def rerun(t, script, names):
    """Runs tests of a script again in a process with the newer SQLite; each is a part of `t`."""
    import sys
    env = dict(os.environ, LJ_TMP=t.folder("again"), **environment())
    env.pop("LITEJOIN_LOG_FILE", None)
    for name in names:
        with t.part("again: " + name.replace("_", " ")):
            done = subprocess.run([sys.executable, os.path.abspath(script), name, "--seed", str(t.seed)], env=env,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
            lines = done.stdout.decode("utf-8", "replace").splitlines()
            bad = [line for line in lines if line.startswith("not ok")]
            harness.check(done.returncode == 0 and any(line.startswith("ok") for line in lines),
                          "; ".join(bad) or "status %d: %s" % (done.returncode, lines[-3:]))

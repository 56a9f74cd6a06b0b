// s3rver_fixes.js - preloaded into s3rver (node -r), which has three faults that S3 has not.
//
// It does not list what lies below a common prefix in the order of the keys.
// Its own walk skips the folders below a common prefix before it has noted the prefix, so that a listing with a delimiter
// misses every prefix without an object directly in it; and it goes folder by folder, which is another order than that of
// the keys ("a/b" before "a-b"). The caller filters by key again, so walking everything is right, only slower.
'use strict';

const path = require('path');
const utils = require(path.join(path.dirname(process.argv[1]), '..', 'lib', 'utils'));

const SUFFIX = '._S3rver_object';
const walk = utils.walk;

function keyOf(file) {
  return file.endsWith(SUFFIX) ? file.slice(0, -SUFFIX.length) : file;
}

utils.walk = dir =>
  Array.from(walk(dir)).sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1));

// Deleting an object removes the folders it leaves empty, while a put in the same folder has just made sure that it is there,
// or another deletion is about to look: both then answer with a 500. An empty folder shows in no listing, so it may stay.
const fs = require('fs');
const FilesystemStore = require(path.join(path.dirname(process.argv[1]), '..', 'lib', 'stores', 'filesystem'));

FilesystemStore.prototype.deleteObject = async function deleteObject(bucket, key) {
  for (const kind of ['object', 'object.md5', 'metadata.json'])
    fs.rmSync(this.getResourcePath(bucket, key, kind), { force: true });
};

// A put writes over the object as its bytes come. When the client goes away in the middle, what came by then stays as the object,
// or what was there is gone. S3 stores all of a body or nothing.
const crypto = require('crypto');
const { pipeline } = require('stream/promises');
const { Readable, Transform } = require('stream');
let puts = 0;

FilesystemStore.prototype.putObject = async function putObject(object) {
  const target = this.getResourcePath(object.bucket, object.key, 'object');
  const unfinished = path.join(this.rootDirectory, '..', 'unfinished');
  const temp = path.join(unfinished, String(puts++));
  const hash = crypto.createHash('md5');
  const content = Buffer.isBuffer(object.content) ? Readable.from([object.content]) : object.content;
  let size = 0;
  const count = new Transform({
    transform(chunk, encoding, callback) {
      hash.update(chunk);
      size += chunk.length;
      callback(null, chunk);
    },
  });
  fs.mkdirSync(unfinished, { recursive: true });
  await pipeline(content, count, fs.createWriteStream(temp));
  const md5 = hash.digest('hex');
  fs.mkdirSync(path.dirname(target), { recursive: true });
  fs.renameSync(temp, target);
  await this.putMetadata(object.bucket, object.key, object.metadata, md5);
  return { size, md5 };
};

// s3rver_walk.js - preloaded into s3rver (node -r): lists what lies below a common prefix, in the order of the keys.
//
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

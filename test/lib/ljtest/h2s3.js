/*
 * h2s3.js - a small S3 that speaks HTTP/2 only: objects of one bucket in memory, no signature check. For test_http2.py.
 *
 *     node h2s3.js CERTIFICATE.pem KEY.pem
 *
 * Prints its port. GET /_stats answers {"requests": N, "sessions": N}.
 */
"use strict";
const crypto = require("crypto");
const fs = require("fs");
const http2 = require("http2");

const objects = new Map();
const stats = { requests: 0, sessions: 0 };
const server = http2.createSecureServer({
    cert: fs.readFileSync(process.argv[2]), key: fs.readFileSync(process.argv[3]), allowHTTP1: false,
});

function listing(query) {
    const prefix = query.get("prefix") || "";
    let text = "<ListBucketResult><IsTruncated>false</IsTruncated>";
    for (const key of [...objects.keys()].sort()) {
        if (key.startsWith(prefix))
            text += "<Contents><Key>" + key + "</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified><Size>" +
                objects.get(key).length + "</Size></Contents>";
    }
    return text + "</ListBucketResult>";
}

function etag(body) {
    return '"' + crypto.createHash("md5").update(body).digest("hex") + '"';
}

function answer(stream, headers, body) {
    const url = new URL(headers[":path"], "https://x");
    const key = decodeURIComponent(url.pathname.split("/").slice(2).join("/"));
    const method = headers[":method"];
    if (url.pathname === "/_stats")
        return [200, {}, JSON.stringify(stats)];
    stats.requests++;
    if (method === "PUT") {
        if (headers["if-none-match"] === "*" && objects.has(key))
            return [412, {}, "<Error><Code>PreconditionFailed</Code></Error>"];
        if (Number(headers["content-length"]) !== body.length)
            return [411, {}, "<Error><Code>MissingContentLength</Code></Error>"];
        objects.set(key, body);
        return [200, { etag: etag(body) }, ""];
    }
    if (method === "GET" && key === "")
        return [200, { "content-type": "application/xml" }, listing(url.searchParams)];
    if (method === "POST" && url.searchParams.has("delete")) {
        let text = "<DeleteResult>";
        for (const [, name] of body.toString().matchAll(/<Key>([^<]*)<\/Key>/g)) {
            objects.delete(name);
            text += "<Deleted><Key>" + name + "</Key></Deleted>";
        }
        return [200, { "content-type": "application/xml" }, text + "</DeleteResult>"];
    }
    if (!objects.has(key))
        return [404, {}, "<Error><Code>NoSuchKey</Code></Error>"];
    if (method === "DELETE") {
        objects.delete(key);
        return [204, {}, ""];
    }
    const object = objects.get(key);
    const more = { etag: etag(object), "last-modified": "Fri, 02 Jan 2026 03:04:05 GMT" };
    const range = /^bytes=(\d+)-(\d*)$/.exec(headers.range || "");
    if (!range)
        return [200, more, object];
    const from = Number(range[1]);
    const to = range[2] === "" ? object.length - 1 : Math.min(Number(range[2]), object.length - 1);
    if (from >= object.length)
        return [416, {}, "<Error><Code>InvalidRange</Code></Error>"];
    more["content-range"] = `bytes ${from}-${to}/${object.length}`;
    return [206, more, object.subarray(from, to + 1)];
}

server.on("session", () => stats.sessions++);
server.on("stream", (stream, headers) => {
    const parts = [];
    stream.on("error", () => {});
    stream.on("data", (part) => parts.push(part));
    stream.on("end", () => {
        const [status, more, body] = answer(stream, headers, Buffer.concat(parts));
        const bytes = Buffer.from(body);
        stream.respond({ ":status": status, "content-length": bytes.length, ...more });
        stream.end(headers[":method"] === "HEAD" ? undefined : bytes);
    });
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));

/* target_test.c - from replica URL, settings and environment to the bucket, the server and the form of the requests. */
#include "test/unit/unit.h"

#include "vfs/base/str.h"
#include "vfs/storage/s3/s3.h"
#include "vfs/storage/s3/target.h"

#define SETTINGS_MAX 4u

typedef struct {
    const char *url;
    const char *settings; /* "name=value name=value", NULL: none */
    const char *environment_endpoint;
    const char *environment_region;
} input;

/* As s3.c does it. */
static lj_code make(const input *in, lj_s3_target *target, lj_error *err)
{
    lj_storage_setting list[SETTINGS_MAX];
    lj_storage_options options = {.settings = list};
    LJ_CLEANUP(lj_freep) char *settings_text = lj_str_dup(in->settings != NULL ? in->settings : "");
    char *rest = settings_text;
    for (char *name; (name = strsep(&rest, " ")) != NULL && *name != 0;) {
        char *value = strchr(name, '=');
        *value++ = 0;
        list[options.setting_count++] = (lj_storage_setting){name, value};
    }
    LJ_CLEANUP(lj_url_free) lj_url url = {.scheme = NULL};
    LJ_CLEANUP(lj_settings_free) lj_settings settings = {.count = 0};
    lj_s3_environment environment = {.endpoint = in->environment_endpoint,
                                     .region = in->environment_region};
    LJ_TRY(lj_url_parse(in->url, &url, err));
    LJ_TRY(
        lj_settings_make(&settings, lj_s3_settings, LJ_S3_SETTING_COUNT, url.query, &options, err));
    return lj_s3_target_make(&url, &settings, &environment, target, err);
}

/* The URL of a request for `key` (NULL: the bucket), in a region. */
static char *request_url(const lj_s3_target *target, const char *key, const char *region)
{
    lj_error err = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_buf_free) lj_buf host = LJ_BUF_INIT(1024);
    LJ_CLEANUP(lj_buf_free) lj_buf path = LJ_BUF_INIT(4096);
    assert_ok(lj_s3_target_host(target, region, &host, &err), &err);
    assert_ok(lj_s3_target_path(target, key, &path, &err), &err);
    char *url = lj_str_printf("%s://%s%s", target->tls ? "https" : "http", lj_buf_text(&host),
                              lj_buf_text(&path));
    assert_non_null(url);
    return url;
}

static const struct {
    input in;
    const char *region;
    const char *key_url;    /* of the key "k" in that region */
    const char *bucket_url; /* of a listing */
} matrix_rows[] = {
    /* Amazon */
    {{"s3://bkt", NULL, NULL, NULL},
     "us-east-1",
     "https://bkt.s3.us-east-1.amazonaws.com/k",
     "https://bkt.s3.us-east-1.amazonaws.com/"},
    {{"S3://bkt/a/b/", NULL, NULL, NULL},
     "us-east-1",
     "https://bkt.s3.us-east-1.amazonaws.com/a/b/k",
     NULL},
    {{"s3://bkt//a/./b/../c", NULL, NULL, NULL},
     "us-east-1",
     "https://bkt.s3.us-east-1.amazonaws.com/a/c/k",
     NULL},
    {{"s3://bkt/a%20b/%C3%A9", NULL, NULL, NULL},
     "us-east-1",
     "https://bkt.s3.us-east-1.amazonaws.com/a%20b/%C3%A9/k",
     NULL},
    {{"s3://bkt", "region=eu-west-3", NULL, NULL},
     "eu-west-3",
     "https://bkt.s3.eu-west-3.amazonaws.com/k",
     NULL},
    {{"s3://bkt?region=eu-west-3", NULL, NULL, NULL},
     "eu-west-3",
     "https://bkt.s3.eu-west-3.amazonaws.com/k",
     NULL},
    {{"s3://bkt?region=eu-west-3", "region=eu-west-1", NULL, NULL},
     "eu-west-1",
     "https://bkt.s3.eu-west-1.amazonaws.com/k",
     NULL},
    {{"s3://bkt", NULL, NULL, "sa-east-1"},
     "sa-east-1",
     "https://bkt.s3.sa-east-1.amazonaws.com/k",
     NULL},
    {{"s3://bkt?region=eu-west-1", NULL, NULL, "sa-east-1"},
     "eu-west-1",
     "https://bkt.s3.eu-west-1.amazonaws.com/k",
     NULL},
    {{"s3://bkt", "region=cn-north-1", NULL, NULL},
     "cn-north-1",
     "https://bkt.s3.cn-north-1.amazonaws.com.cn/k",
     NULL},
    {{"s3://bkt", "region=us-gov-west-1", NULL, NULL},
     "us-gov-west-1",
     "https://bkt.s3.us-gov-west-1.amazonaws.com/k",
     NULL},
    {{"s3://bkt", "region=eusc-de-east-1", NULL, NULL},
     "eusc-de-east-1",
     "https://bkt.s3.eusc-de-east-1.amazonaws.eu/k",
     NULL},
    {{"s3://my.dotted.bkt/p", NULL, NULL, NULL},
     "us-east-1",
     "https://s3.us-east-1.amazonaws.com/my.dotted.bkt/p/k",
     "https://s3.us-east-1.amazonaws.com/my.dotted.bkt"},
    {{"s3://Old_Bucket", NULL, NULL, NULL},
     "us-east-1",
     "https://s3.us-east-1.amazonaws.com/Old_Bucket/k",
     NULL},
    {{"s3://bkt", "force-path-style=true", NULL, NULL},
     "us-east-1",
     "https://s3.us-east-1.amazonaws.com/bkt/k",
     NULL},
    {{"s3://bkt.s3.eu-west-1.amazonaws.com/p", NULL, NULL, NULL},
     "eu-west-1",
     "https://bkt.s3.eu-west-1.amazonaws.com/p/k",
     NULL},
    {{"s3://bkt.s3.amazonaws.com/p", NULL, NULL, NULL},
     "us-east-1",
     "https://bkt.s3.us-east-1.amazonaws.com/p/k",
     NULL},
    {{"s3://bkt.s3.cn-north-1.amazonaws.com.cn", NULL, NULL, NULL},
     "cn-north-1",
     "https://bkt.s3.cn-north-1.amazonaws.com.cn/k",
     NULL},
    {{"s3://bkt", "endpoint=https://s3.eu-west-1.amazonaws.com region=eu-west-1", NULL, NULL},
     "eu-west-1",
     "https://bkt.s3.eu-west-1.amazonaws.com/k",
     NULL},
    {{"s3://bkt",
      "endpoint=https://s3.dualstack.us-west-2.amazonaws.com force-path-style=no "
      "region=us-west-2",
      NULL, NULL},
     "us-west-2",
     "https://bkt.s3.dualstack.us-west-2.amazonaws.com/k",
     NULL},
    /* the host forms of v0.3.13 */
    {{"s3://bkt.localhost:9000/p", NULL, NULL, NULL},
     "us-east-1",
     "http://localhost:9000/bkt/p/k",
     "http://localhost:9000/bkt"},
    {{"s3://bkt.localhost", NULL, NULL, NULL}, "us-east-1", "http://localhost/bkt/k", NULL},
    {{"s3://my.bkt.localhost:9000", NULL, NULL, NULL},
     "us-east-1",
     "http://localhost:9000/my.bkt/k",
     NULL},
    {{"s3://bkt.localhost:9000", "force-path-style=false", NULL, NULL},
     "us-east-1",
     "http://localhost:9000/bkt/k",
     NULL},
    {{"s3://bkt.localhost:9000", "region=eu-west-1", NULL, NULL},
     "eu-west-1",
     "http://localhost:9000/bkt/k",
     NULL},
    {{"s3://bkt.localhost:9000", NULL, "https://elsewhere", "eu-west-1"},
     "us-east-1",
     "http://localhost:9000/bkt/k",
     NULL},
    {{"s3://bkt.localhost:9000", "endpoint=http://127.0.0.1:7000", NULL, NULL},
     "us-east-1",
     "http://127.0.0.1:7000/bkt/k",
     NULL},
    {{"s3://bkt.s3.us-west-000.backblazeb2.com/p", NULL, NULL, NULL},
     "us-west-000",
     "https://s3.us-west-000.backblazeb2.com/bkt/p/k",
     NULL},
    {{"s3://bkt.S3.us-west-000.BackblazeB2.com/p", NULL, NULL, NULL},
     "us-west-000",
     "https://s3.us-west-000.backblazeb2.com/bkt/p/k",
     NULL},
    {{"s3://bkt.s3.filebase.com", NULL, NULL, NULL},
     "us-east-1",
     "https://s3.filebase.com/bkt/k",
     NULL},
    {{"s3://bkt.nyc3.digitaloceanspaces.com", NULL, NULL, NULL},
     "nyc3",
     "https://nyc3.digitaloceanspaces.com/bkt/k",
     NULL},
    {{"s3://my.bkt.nyc3.digitaloceanspaces.com", NULL, NULL, NULL},
     "nyc3",
     "https://nyc3.digitaloceanspaces.com/my.bkt/k",
     NULL},
    {{"s3://bkt.nyc3.digitaloceanspaces.com:8443/p", NULL, NULL, NULL},
     "nyc3",
     "https://nyc3.digitaloceanspaces.com:8443/bkt/p/k",
     NULL},
    {{"s3://bkt.s3.fr-par.scw.cloud/p", NULL, NULL, NULL},
     "fr-par",
     "https://s3.fr-par.scw.cloud/bkt/p/k",
     NULL},
    {{"s3://bkt.eu-central-1.linodeobjects.com", NULL, NULL, NULL},
     "eu-central-1",
     "https://eu-central-1.linodeobjects.com/bkt/k",
     NULL},
    {{"s3://bkt.eu-central-1.linodeobjects.com", "region=x", NULL, NULL},
     "x",
     "https://eu-central-1.linodeobjects.com/bkt/k",
     NULL},
    /* other providers */
    {{"s3://bkt.0123abcd.r2.cloudflarestorage.com/p", NULL, NULL, NULL},
     "auto",
     "https://0123abcd.r2.cloudflarestorage.com/bkt/p/k",
     NULL},
    {{"s3://bkt.0123abcd.eu.r2.cloudflarestorage.com/p", NULL, NULL, NULL},
     "auto",
     "https://0123abcd.eu.r2.cloudflarestorage.com/bkt/p/k",
     NULL},
    {{"s3://bkt.fsn1.your-objectstorage.com/p", NULL, NULL, NULL},
     "fsn1",
     "https://fsn1.your-objectstorage.com/bkt/p/k",
     NULL},
    {{"s3://bkt.fly.storage.tigris.dev/p", NULL, NULL, "fra"},
     "auto",
     "https://bkt.fly.storage.tigris.dev/p/k",
     "https://bkt.fly.storage.tigris.dev/"},
    {{"s3://bkt.t3.storage.dev", NULL, NULL, NULL}, "auto", "https://bkt.t3.storage.dev/k", NULL},
    {{"s3://bkt", NULL, "https://fly.storage.tigris.dev", "fra"},
     "auto",
     "https://bkt.fly.storage.tigris.dev/k",
     NULL},
    {{"s3://bkt", "force-path-style=true", "https://fly.storage.tigris.dev", NULL},
     "auto",
     "https://fly.storage.tigris.dev/bkt/k",
     NULL},
    /* endpoints */
    {{"s3://bkt/p", "endpoint=https://minio.example.com", NULL, NULL},
     "us-east-1",
     "https://minio.example.com/bkt/p/k",
     NULL},
    {{"s3://bkt/p", "endpoint=minio.example.com:9000", NULL, NULL},
     "us-east-1",
     "https://minio.example.com:9000/bkt/p/k",
     NULL},
    {{"s3://bkt/p", "endpoint=localhost:9000", NULL, NULL},
     "us-east-1",
     "http://localhost:9000/bkt/p/k",
     NULL},
    {{"s3://bkt/p", "endpoint=127.0.0.1:9000", NULL, NULL},
     "us-east-1",
     "http://127.0.0.1:9000/bkt/p/k",
     NULL},
    {{"s3://bkt/p", "endpoint=[::1]:9000", NULL, NULL},
     "us-east-1",
     "http://[::1]:9000/bkt/p/k",
     NULL},
    {{"s3://bkt/p", "endpoint=https://[2001:db8::1]", NULL, NULL},
     "us-east-1",
     "https://[2001:db8::1]/bkt/p/k",
     NULL},
    {{"s3://bkt/p", "endpoint=http://10.0.0.1:9000 force-path-style=false", NULL, NULL},
     "us-east-1",
     "http://10.0.0.1:9000/bkt/p/k",
     NULL},
    {{"s3://bkt/p", "endpoint=https://Minio.Example.COM:443/", NULL, NULL},
     "us-east-1",
     "https://minio.example.com/bkt/p/k",
     NULL},
    {{"s3://bkt/p", "endpoint=http://minio:80", NULL, NULL},
     "us-east-1",
     "http://minio/bkt/p/k",
     NULL},
    {{"s3://bkt/p", "endpoint=https://minio:80", NULL, NULL},
     "us-east-1",
     "https://minio:80/bkt/p/k",
     NULL},
    {{"s3://bkt/p", "endpoint=https://x.example.com/storage/v1/s3/", NULL, NULL},
     "us-east-1",
     "https://x.example.com/storage/v1/s3/bkt/p/k",
     "https://x.example.com/storage/v1/s3/bkt"},
    {{"s3://bkt/p", "endpoint=https://minio.example.com force-path-style=false", NULL, NULL},
     "us-east-1",
     "https://bkt.minio.example.com/p/k",
     NULL},
    {{"s3://my.bkt/p", "endpoint=http://minio.example.com force-path-style=false", NULL, NULL},
     "us-east-1",
     "http://my.bkt.minio.example.com/p/k",
     NULL},
    {{"s3://bkt/"
      "p?endpoint=https%3A%2F%2Fminio.example.com&forcePathStyle=false&skipVerify=true",
      NULL, NULL, NULL},
     "us-east-1",
     "https://bkt.minio.example.com/p/k",
     NULL},
    {{"s3://bkt", "endpoint=https://minio", "https://elsewhere", "eu-west-1"},
     "eu-west-1",
     "https://minio/bkt/k",
     NULL},
    {{"s3://bkt", NULL, "https://elsewhere:9000", NULL},
     "us-east-1",
     "https://elsewhere:9000/bkt/k",
     NULL},
    {{"s3://bkt", NULL, "", ""}, "us-east-1", "https://bkt.s3.us-east-1.amazonaws.com/k", NULL},
};

static void matrix(void **state)
{
    (void)state;
    for (size_t i = 0; i < LJ_ARRAY_LEN(matrix_rows); i++) {
        lj_error err = LJ_ERROR_INIT;
        LJ_CLEANUP(lj_s3_target_free) lj_s3_target target = {.bucket = NULL};
        if (make(&matrix_rows[i].in, &target, &err) != LJ_OK)
            fail_msg("row %zu, %s: %s", i, matrix_rows[i].in.url, err.message);
        LJ_CLEANUP(lj_freep) char *key_url = request_url(&target, "k", target.region);
        LJ_CLEANUP(lj_freep) char *bucket_url = request_url(&target, NULL, target.region);
        if (!lj_str_eq(key_url, matrix_rows[i].key_url) ||
            !lj_str_eq(target.region, matrix_rows[i].region) ||
            (matrix_rows[i].bucket_url != NULL &&
             !lj_str_eq(bucket_url, matrix_rows[i].bucket_url)))
            fail_msg("row %zu, %s: %s %s %s", i, matrix_rows[i].in.url, target.region, key_url,
                     bucket_url);
    }
}

static void another_region(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_s3_target_free) lj_s3_target amazon = {.bucket = NULL};
    LJ_CLEANUP(lj_s3_target_free) lj_s3_target other = {.bucket = NULL};
    assert_ok(make(&(input){"s3://bkt", NULL, NULL, NULL}, &amazon, &err), &err);
    assert_ok(make(&(input){"s3://bkt", "endpoint=https://minio", NULL, NULL}, &other, &err), &err);
    LJ_CLEANUP(lj_freep) char *moved = request_url(&amazon, "a b/c+d", "eu-west-1");
    assert_string_equal(moved, "https://bkt.s3.eu-west-1.amazonaws.com/a%20b/c%2Bd");
    LJ_CLEANUP(lj_freep) char *stays = request_url(&other, "k", "eu-west-1");
    assert_string_equal(stays, "https://minio/bkt/k");
}

static void quirks_of_providers(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    static const struct {
        const char *url;
        bool tigris;
        bool equal_parts;
    } rows[] = {{"s3://b.a.r2.cloudflarestorage.com", false, true},
                {"s3://b?endpoint=https://a.eu.r2.cloudflarestorage.com", false, true},
                {"s3://b.fly.storage.tigris.dev", true, false},
                {"s3://b?endpoint=https://t3.storage.dev", true, false},
                {"s3://b", false, false},
                {"s3://b.localhost:1", false, false}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        LJ_CLEANUP(lj_s3_target_free) lj_s3_target target = {.bucket = NULL};
        assert_ok(make(&(input){rows[i].url, NULL, NULL, NULL}, &target, &err), &err);
        assert_int_equal(target.tigris, rows[i].tigris);
        assert_int_equal(target.equal_parts, rows[i].equal_parts);
    }
}

static void refused(void **state)
{
    (void)state;
    static const struct {
        input in;
        lj_code code;
        const char *says;
    } rows[] = {
        {{"s3://", NULL, NULL, NULL}, LJ_INVALID, "does not name a bucket"},
        {{"s3:///prefix", NULL, NULL, NULL}, LJ_INVALID, "does not name a bucket"},
        {{"s3://localhost:9000/bkt", NULL, NULL, NULL}, LJ_INVALID, "does not name a bucket"},
        {{"s3://nyc3.digitaloceanspaces.com/bkt", NULL, NULL, NULL},
         LJ_INVALID,
         "does not name a bucket"},
        {{"s3://bkt:9000/p", NULL, NULL, NULL}, LJ_INVALID, "port behind the bucket"},
        {{"s3://minio.example.com:9000/bkt", NULL, NULL, NULL},
         LJ_INVALID,
         "port behind the bucket"},
        {{"s3://a%2Fb.scw.cloud", NULL, NULL, NULL},
         LJ_INVALID,
         "in its host that no host can have"},
        {{"s3://b%20kt", NULL, NULL, NULL}, LJ_INVALID, "in its host that no host can have"},
        {{"s3://id:sw0rdfish@bkt", NULL, NULL, NULL}, LJ_INVALID, "user or a password"},
        {{"s3://id@bkt", NULL, NULL, NULL}, LJ_INVALID, "user or a password"},
        {{"s3://bkt--usw2-az1--x-s3", NULL, NULL, NULL}, LJ_UNSUPPORTED, "directory bucket"},
        {{"s3://bkt", "region=eu!west", NULL, NULL}, LJ_INVALID, "cannot be a region"},
        {{"s3://bkt", "region=evil.com/", NULL, NULL}, LJ_INVALID, "cannot be a region"},
        {{"s3://bkt", "endpoint=ftp://x", NULL, NULL}, LJ_INVALID, "endpoint"},
        {{"s3://bkt", "endpoint=https://", NULL, NULL}, LJ_INVALID, "endpoint"},
        {{"s3://bkt", "endpoint=https://h?x=1", NULL, NULL}, LJ_INVALID, "endpoint"},
        {{"s3://bkt", "endpoint=https://h:99999", NULL, NULL}, LJ_INVALID, "endpoint"},
        {{"s3://bkt", "endpoint=https://u:sw0rdfish@h", NULL, NULL},
         LJ_INVALID,
         "endpoint has a user"},
        {{"s3://bkt", "force-path-style=perhaps", NULL, NULL}, LJ_INVALID, "force-path-style"},
        {{"s3://bkt?acl=private", NULL, NULL, NULL}, LJ_INVALID, "acl"},
        {{"s3://bkt?secret-access-key=sw0rdfish", NULL, NULL, NULL}, LJ_INVALID, "secret"},
        {{"s3://bkt?sse-customer-key=sw0rdfish", NULL, NULL, NULL}, LJ_INVALID, "secret"},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_error err = LJ_ERROR_INIT;
        lj_s3_target target = {.bucket = NULL};
        lj_code code = make(&rows[i].in, &target, &err);
        if (code != rows[i].code || strstr(err.message, rows[i].says) == NULL)
            fail_msg("row %zu, %s: %s: %s", i, rows[i].in.url, lj_code_text(code), err.message);
        assert_null(target.bucket);
        assert_null(strstr(err.message, "sw0rdfish"));
        assert_null(strstr(err.hint, "sw0rdfish"));
    }
}

static void loopback(void **state)
{
    (void)state;
    static const char *const yes[] = {
        "localhost", "LOCALHOST:9000", "s3.localhost", "127.0.0.1",      "127.1.2.3:80",
        "[::1]",     "[::1]:9000",     "::1",          "b.localhost:1/x"};
    static const char *const no[] = {"localhost.example.com",
                                     "mylocalhost",
                                     "127.0.0.1.example.com",
                                     "10.0.0.1",
                                     "[::2]",
                                     "::2",
                                     "example.com:127",
                                     ""};
    for (size_t i = 0; i < LJ_ARRAY_LEN(yes); i++)
        if (!lj_s3_is_loopback(yes[i]))
            fail_msg("%s is loopback", yes[i]);
    for (size_t i = 0; i < LJ_ARRAY_LEN(no); i++)
        if (lj_s3_is_loopback(no[i]))
            fail_msg("%s is not loopback", no[i]);
}

/* What only opening checks; no request is made. */
static void opening(void **state)
{
    (void)state;
    static const char key[] = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    static const struct {
        const char *url;
        lj_storage_setting setting;
        lj_code code;
        const char *says; /* in the message, or the URL when it opens */
    } rows[] = {
        {"s3://bkt/p?region=us-west-1", {NULL, NULL}, LJ_OK, "s3://bkt/p"},
        {"s3://bkt.localhost:9000//p/?sse=AES256",
         {NULL, NULL},
         LJ_OK,
         "s3://bkt.localhost:9000/p"},
        {"s3://arn:aws:s3:us-east-1:123456789012:accesspoint/ap/p",
         {NULL, NULL},
         LJ_UNSUPPORTED,
         "ARN"},
        {"s3://bkt?sse=aes", {NULL, NULL}, LJ_INVALID, "sse"},
        {"s3://bkt?sse=aws:kms&sse-kms-key-id=alias/x", {NULL, NULL}, LJ_OK, "s3://bkt"},
        {"s3://bkt?sse=AES256&sse-kms-key-id=x", {NULL, NULL}, LJ_INVALID, "sse-kms-key-id"},
        {"s3://bkt?sse-kms-key-id=x", {NULL, NULL}, LJ_INVALID, "sse-kms-key-id"},
        {"s3://bkt?storage-class=STANDARD_IA", {NULL, NULL}, LJ_OK, "s3://bkt"},
        {"s3://bkt?storage-class=A%0D%0AB", {NULL, NULL}, LJ_INVALID, "not well encoded"},
        {"s3://bkt?storage-class=DEEP_ARCHIVE", {NULL, NULL}, LJ_INVALID, "DEEP_ARCHIVE"},
        {"s3://bkt?conditional=AUTO", {NULL, NULL}, LJ_OK, "s3://bkt"},
        {"s3://bkt?conditional=on", {NULL, NULL}, LJ_OK, "s3://bkt"},
        {"s3://bkt?conditional=maybe", {NULL, NULL}, LJ_INVALID, "conditional"},
        {"s3://bkt?list-page-size=1000", {NULL, NULL}, LJ_OK, "s3://bkt"},
        {"s3://bkt?list-page-size=1001", {NULL, NULL}, LJ_INVALID, "list-page-size"},
        {"s3://bkt?list-page-size=0", {NULL, NULL}, LJ_INVALID, "list-page-size"},
        {"s3://bkt?skip-verify=x", {NULL, NULL}, LJ_INVALID, "skip-verify"},
        {"s3://bkt", {"sse-customer-key", key}, LJ_OK, "s3://bkt"},
        {"s3://bkt?endpoint=http://minio.example.com",
         {"sse-customer-key", key},
         LJ_INVALID,
         "unencrypted"},
        {"s3://bkt.localhost:9000", {"sse-customer-key", key}, LJ_OK, "s3://bkt.localhost:9000"},
        {"s3://bkt?sse=AES256", {"sse-customer-key", key}, LJ_INVALID, "exclude"},
        {"s3://bkt", {"sse-customer-key", "c3cwcmRmaXNo"}, LJ_INVALID, "sse-customer-key"},
        {"s3://bkt", {"sse-customer-key", "not base64"}, LJ_INVALID, "sse-customer-key"},
        {"s3://bkt", {"access-key-id", "AKIA"}, LJ_INVALID, "half a key pair"},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_error err = LJ_ERROR_INIT;
        lj_storage *storage = NULL;
        lj_storage_options options = {.settings = &rows[i].setting,
                                      .setting_count = rows[i].setting.name != NULL ? 1 : 0};
        lj_code code = lj_storage_open(rows[i].url, &options, &storage, &err);
        if (code != rows[i].code ||
            (code != LJ_OK && strcasestr(err.message, rows[i].says) == NULL))
            fail_msg("row %zu, %s: %s: %s", i, rows[i].url, lj_code_text(code), err.message);
        assert_null(strstr(err.message, "c3cwcmRmaXNo"));
        if (code == LJ_OK) {
            assert_string_equal(lj_storage_url(storage), rows[i].says);
            assert_string_equal(lj_storage_type(storage), "s3");
            assert_int_equal(lj_storage_features(storage),
                             LJ_STORAGE_IF_ABSENT | LJ_STORAGE_REMOTE);
        }
        lj_storage_close(storage);
    }
}

/* For hosts that have no other way than a URL, where it may not be. */
static void customer_key_of_the_environment(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_storage *storage = NULL;
    setenv(LJ_S3_CUSTOMER_KEY_VARIABLE, "c3cwcmRmaXNo", 1);
    assert_int_equal(lj_storage_open("s3://bkt", NULL, &storage, &err), LJ_INVALID);
    assert_non_null(strstr(err.message, "sse-customer-key"));
    assert_null(strstr(err.message, "c3cwcmRmaXNo"));
    setenv(LJ_S3_CUSTOMER_KEY_VARIABLE, "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", 1);
    assert_int_equal(
        lj_storage_open("s3://bkt?endpoint=http://minio.example.com", NULL, &storage, &err),
        LJ_INVALID);
    assert_non_null(strstr(err.message, "unencrypted"));
    assert_ok(lj_storage_open("s3://bkt", NULL, &storage, &err), &err);
    lj_storage_close(storage);
    unsetenv(LJ_S3_CUSTOMER_KEY_VARIABLE);
}

/* Not the machine's own configuration. */
static int clean_environment(void **state)
{
    (void)state;
    static const char *const names[] = {"AWS_ENDPOINT_URL",
                                        "AWS_ENDPOINT_URL_S3",
                                        "AWS_REGION",
                                        "AWS_DEFAULT_REGION",
                                        "AWS_PROFILE",
                                        "AWS_CA_BUNDLE",
                                        "AWS_ACCESS_KEY_ID",
                                        "AWS_SECRET_ACCESS_KEY",
                                        "AWS_SESSION_TOKEN",
                                        LJ_S3_CUSTOMER_KEY_VARIABLE,
                                        "LITESTREAM_ACCESS_KEY_ID",
                                        "LITESTREAM_SECRET_ACCESS_KEY",
                                        "AWS_WEB_IDENTITY_TOKEN_FILE",
                                        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                                        "AWS_CONTAINER_CREDENTIALS_FULL_URI"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(names); i++)
        unsetenv(names[i]);
    setenv("AWS_CONFIG_FILE", "/nonexistent", 1);
    setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent", 1);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matrix),
        cmocka_unit_test(another_region),
        cmocka_unit_test(quirks_of_providers),
        cmocka_unit_test(refused),
        cmocka_unit_test(loopback),
        cmocka_unit_test(opening),
        cmocka_unit_test(customer_key_of_the_environment),
    };
    return cmocka_run_group_tests(tests, clean_environment, NULL);
}

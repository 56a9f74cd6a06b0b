/*
 * google_test.c - Google credentials without a server: which files are taken and which are not, the JWT, the answers of token
 * services, where credentials are looked for.
 */
#include "test/unit/unit.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vfs/base/clock.h"
#include "vfs/base/io.h"
#include "vfs/base/str.h"
#include "vfs/storage/auth/crypto.h"
#include "vfs/storage/auth/google_internal.h"

static EVP_PKEY *key;
static char *key_json; /* in PEM, with "\n" for line breaks */
static char folder[] = "/tmp/lj_google_XXXXXX";

static int make_key(void **state)
{
    (void)state;
    char *pem = NULL;
    key = EVP_RSA_gen(2048);
    BIO *bio = BIO_new(BIO_s_mem());
    if (key == NULL || bio == NULL ||
        PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) != 1)
        return -1;
    long len = BIO_get_mem_data(bio, &pem);
    key_json = calloc(2, (size_t)len + 1);
    for (long i = 0, out = 0; i < len; i++) {
        if (pem[i] == '\n') {
            key_json[out++] = '\\';
            key_json[out++] = 'n';
        } else {
            key_json[out++] = pem[i];
        }
    }
    BIO_free(bio);
    return mkdtemp(folder) != NULL ? 0 : -1;
}

static int free_key(void **state)
{
    (void)state;
    EVP_PKEY_free(key);
    free(key_json);
    return rmdir(folder);
}

#define USER(more)                                                                                 \
    "{\"type\":\"authorized_user\",\"client_id\":\"id\",\"client_secret\":\"hidden1\","            \
    "\"refresh_token\":\"hidden2\"" more "}"
#define EXTERNAL(source, more)                                                                     \
    "{\"type\":\"external_account\",\"audience\":\"//iam.googleapis.com/x\","                      \
    "\"subject_token_type\":\"urn:ietf:params:oauth:token-type:jwt\","                             \
    "\"token_url\":\"https://sts.googleapis.com/v1/token\",\"credential_source\":" source more "}"

static lj_code parse(const char *text, lj_google_file *file, lj_error *err)
{
    return lj_google_file_parse(text, strlen(text), file, err);
}

static void good_files(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_google_file file;
    assert_ok(parse(USER(""), &file, &err), &err);
    assert_int_equal(file.kind, LJ_GOOGLE_AUTHORIZED_USER);
    assert_string_equal(lj_secret_text(&file.refresh_token), "hidden2");
    assert_false(lj_secret_is_set(&file.token_url));
    lj_google_file_free(&file);

    assert_ok(parse(EXTERNAL("{\"file\":\"/var/token\"}", ""), &file, &err), &err);
    assert_int_equal(file.kind, LJ_GOOGLE_EXTERNAL_ACCOUNT);
    assert_string_equal(lj_secret_text(&file.source_file), "/var/token");
    assert_false(lj_secret_is_set(&file.source_field));
    assert_int_equal(file.impersonation_life_s, 3600);
    lj_google_file_free(&file);

    assert_ok(
        parse(EXTERNAL(
                  "{\"url\":\"http://169.254.169.254/t\",\"headers\":{\"Metadata\":\"True\"},"
                  "\"format\":{\"type\":\"json\",\"subject_token_field_name\":\"tok\"}}",
                  ",\"service_account_impersonation_url\":\"https://iam/x\","
                  "\"service_account_impersonation\":{\"token_lifetime_seconds\":1200},"
                  "\"workforce_pool_user_project\":\"p\",\"universe_domain\":\"googleapis.com\""),
              &file, &err),
        &err);
    assert_string_equal(lj_secret_text(&file.source_headers[0]), "Metadata: True");
    assert_string_equal(lj_secret_text(&file.source_field), "tok");
    assert_string_equal(lj_secret_text(&file.impersonation_url), "https://iam/x");
    assert_int_equal(file.impersonation_life_s, 1200);
    lj_google_file_free(&file);

    assert_ok(parse("{\"type\":\"impersonated_service_account\","
                    "\"service_account_impersonation_url\":\"https://iam/y\","
                    "\"delegates\":[\"a\",\"b\"],\"source_credentials\":" USER("") "}",
                    &file, &err),
              &err);
    assert_int_equal(file.kind, LJ_GOOGLE_AUTHORIZED_USER);
    assert_string_equal(lj_secret_text(&file.impersonation_url), "https://iam/y");
    assert_string_equal(lj_secret_text(&file.delegates), "[\"a\",\"b\"]");
    lj_google_file_free(&file);
}

static void bad_files(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        lj_code code;
        const char *names; /* part of the message */
    } rows[] = {
        {"", LJ_INVALID, "not JSON"},
        {"[]", LJ_INVALID, "not JSON"},
        {"{\"type\":\"authorized_user\",\"client_secret\":\"hidden1\"", LJ_INVALID, "not JSON"},
        {"{}", LJ_INVALID, "\"type\""},
        {"{\"type\":5}", LJ_INVALID, "\"type\""},
        {"{\"type\":\"gdch_service_account\"}", LJ_UNSUPPORTED, "type"},
        {"{\"type\":\"external_account_authorized_user\"}", LJ_UNSUPPORTED, "type"},
        {USER(",\"universe_domain\":\"example.com\""), LJ_UNSUPPORTED, "universe"},
        {USER(",\"token_uri\":\"http://example.com/token\""), LJ_INVALID, "token_uri"},
        {USER(",\"token_uri\":\"https://me@example.com/token\""), LJ_INVALID, "token_uri"},
        {USER(",\"token_uri\":5"), LJ_INVALID, "token_uri"},
        {"{\"type\":\"authorized_user\",\"client_id\":\"id\",\"client_secret\":\"hidden1\"}",
         LJ_INVALID, "refresh_token"},
        {"{\"type\":\"authorized_user\",\"client_id\":\"\",\"client_secret\":\"hidden1\","
         "\"refresh_token\":\"hidden2\"}",
         LJ_INVALID, "client_id"},
        {"{\"type\":\"service_account\",\"client_email\":\"a@b\",\"private_key\":\"hidden3\"}",
         LJ_INVALID, "private_key"},
        {"{\"type\":\"service_account\",\"private_key\":\"hidden3\"}", LJ_INVALID, "client_email"},
        {EXTERNAL("5", ""), LJ_INVALID, "credential_source"},
        {EXTERNAL("{}", ""), LJ_INVALID, "credential_source"},
        {EXTERNAL("{\"file\":\"/a\",\"url\":\"https://b\"}", ""), LJ_INVALID, "credential_source"},
        {EXTERNAL("{\"environment_id\":\"aws1\"}", ""), LJ_UNSUPPORTED, "AWS"},
        {EXTERNAL("{\"executable\":{\"command\":\"x\"}}", ""), LJ_UNSUPPORTED, "program"},
        {EXTERNAL("{\"file\":\"/a\",\"format\":{\"type\":\"xml\"}}", ""), LJ_INVALID, "format"},
        {EXTERNAL("{\"file\":\"/a\",\"format\":{\"type\":\"json\"}}", ""), LJ_INVALID,
         "subject_token_field_name"},
        {EXTERNAL("{\"url\":\"http://example.com/t\"}", ""), LJ_INVALID, "\"url\""},
        {EXTERNAL("{\"url\":\"https://e/t\",\"headers\":{\"a\":\"b\\r\\nc\"}}", ""), LJ_INVALID,
         "headers"},
        {EXTERNAL("{\"url\":\"https://e/t\",\"headers\":{\"a:\":\"b\"}}", ""), LJ_INVALID,
         "headers"},
        {EXTERNAL("{\"file\":\"/a\"}",
                  ",\"service_account_impersonation\":{\"token_lifetime_seconds\":5}"),
         LJ_INVALID, "token_lifetime_seconds"},
        {EXTERNAL("{\"file\":\"/a\"}", ",\"service_account_impersonation_url\":\"ftp://x\""),
         LJ_INVALID, "service_account_impersonation_url"},
        {"{\"type\":\"impersonated_service_account\",\"source_credentials\":" USER("") "}",
         LJ_INVALID, "service_account_impersonation_url"},
        {"{\"type\":\"impersonated_service_account\","
         "\"service_account_impersonation_url\":\"https://iam/y\"}",
         LJ_INVALID, "source_credentials"},
        {"{\"type\":\"impersonated_service_account\",\"source_credentials\":"
         "{\"type\":\"impersonated_service_account\"}}",
         LJ_UNSUPPORTED, "type"},
        {"{\"type\":\"impersonated_service_account\",\"service_account_impersonation_url\":\"https:"
         "//z\","
         "\"source_credentials\":" EXTERNAL(
             "{\"file\":\"/a\"}", ",\"service_account_impersonation_url\":\"https://y\"") "}",
         LJ_UNSUPPORTED, "impersonation"},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_error err = LJ_ERROR_INIT;
        lj_google_file file;
        lj_code code = parse(rows[i].text, &file, &err);
        if (code != rows[i].code || strstr(err.message, rows[i].names) == NULL)
            fail_msg("%s: %s: %s", rows[i].text, lj_code_text(code), err.message);
        assert_true(err.hint[0] != 0);
        assert_null(strstr(err.message, "hidden"));
        assert_null(strstr(err.hint, "hidden"));
    }
}

static void safe_urls(void **state)
{
    (void)state;
    static const char *const good[] = {"https://oauth2.googleapis.com/token",
                                       "HTTPS://x",
                                       "http://localhost:1/x",
                                       "http://127.0.0.1:80",
                                       "http://[::1]:1/x",
                                       "http://169.254.169.254/a?b",
                                       "http://metadata.google.internal/x",
                                       "https://x?a=b@c"};
    static const char *const bad[] = {"",
                                      "oauth2.googleapis.com",
                                      "http://example.com",
                                      "http://127.0.0.1.example.com/",
                                      "http://127.example.com/",
                                      "http://1.127.0.0.1",
                                      "http://localhost@example.com/",
                                      "https://a@b/",
                                      "https://",
                                      "https:///x",
                                      "https://a b",
                                      "https://a\nb",
                                      "http://[::2]/",
                                      "file:///etc/passwd"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(good); i++)
        if (!lj_google_url_ok(good[i]))
            fail_msg("refused: %s", good[i]);
    for (size_t i = 0; i < LJ_ARRAY_LEN(bad); i++)
        if (lj_google_url_ok(bad[i]))
            fail_msg("taken: %s", bad[i]);
}

/* base64url without padding back into bytes */
static void decode(const char *text, size_t len, lj_secret *bytes)
{
    lj_error err = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_freep)
    char *copy = lj_str_printf("%.*s%.*s", (int)len, text, (int)((4 - len % 4) % 4), "===");
    for (char *c = copy; *c != 0; c++)
        *c = *c == '-' ? '+' : *c == '_' ? '/' : *c;
    assert_ok(lj_base64_decode(copy, bytes, &err), &err);
}

static void check_claims(const char *jwt, size_t head, size_t claims)
{
    LJ_CLEANUP(lj_secret_free) lj_secret text = LJ_SECRET_NONE;
    decode(jwt, head, &text);
    LJ_CLEANUP(lj_google_json_free) json_t *json = lj_google_json_parse(text.bytes, text.len);
    assert_string_equal(lj_google_json_text(json, "alg"), "RS256");
    assert_string_equal(lj_google_json_text(json, "typ"), "JWT");
    assert_string_equal(lj_google_json_text(json, "kid"), "kid1");
    lj_google_json_free(&json);
    decode(jwt + head + 1, claims, &text);
    json = lj_google_json_parse(text.bytes, text.len);
    assert_string_equal(lj_google_json_text(json, "iss"), "robot@p.iam.gserviceaccount.com");
    assert_string_equal(lj_google_json_text(json, "scope"), LJ_GOOGLE_SCOPE_STORAGE);
    assert_string_equal(lj_google_json_text(json, "aud"), "https://oauth2.googleapis.com/token");
    json_int_t issued = json_integer_value(json_object_get(json, "iat"));
    assert_int_equal(issued, 1767323045 - 10);
    assert_int_equal(json_integer_value(json_object_get(json, "exp")), issued + 3600);
    assert_int_equal(json_object_size(json), 5);
}

static void jwt_is_signed(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_google_file file;
    LJ_CLEANUP(lj_secret_free) lj_secret jwt = LJ_SECRET_NONE;
    LJ_CLEANUP(lj_freep)
    char *text =
        lj_str_printf("{\"type\":\"service_account\",\"project_id\":\"p\",\"private_key\":\"%s\","
                      "\"private_key_id\":\"kid1\","
                      "\"client_email\":\"robot@p.iam.gserviceaccount.com\"}",
                      key_json);
    assert_ok(parse(text, &file, &err), &err);
    assert_int_equal(file.kind, LJ_GOOGLE_SERVICE_ACCOUNT);
    assert_ok(
        lj_google_jwt(&file, LJ_GOOGLE_SCOPE_STORAGE, INT64_C(1767323045999000000), &jwt, &err),
        &err);
    size_t head = strcspn(lj_secret_text(&jwt), ".");
    size_t claims = strcspn(lj_secret_text(&jwt) + head + 1, ".");
    check_claims(lj_secret_text(&jwt), head, claims);
    LJ_CLEANUP(lj_secret_free) lj_secret signature = LJ_SECRET_NONE;
    const char *tail = lj_secret_text(&jwt) + head + 1 + claims + 1;
    decode(tail, strlen(tail), &signature);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    assert_int_equal(EVP_DigestVerifyInit(ctx, NULL, EVP_sha256(), NULL, key), 1);
    assert_int_equal(EVP_DigestVerify(ctx, (const unsigned char *)signature.bytes, signature.len,
                                      (const unsigned char *)lj_secret_text(&jwt),
                                      head + 1 + claims),
                     1);
    EVP_MD_CTX_free(ctx);
    lj_google_file_free(&file);
}

static void answers(void **state)
{
    (void)state;
    const int64_t now_ns = INT64_C(1767323045) * LJ_NS_PER_S;
    static const struct {
        const char *text;
        const char *token; /* NULL: refused */
        int64_t life_s;
    } rows[] = {
        {"{\"access_token\":\"ya29.a\",\"expires_in\":3599,\"token_type\":\"Bearer\"}", "ya29.a",
         3599},
        {"{\"access_token\":\"t\",\"expires_in\":\"60\",\"token_type\":\"bearer\"}", "t", 60},
        {"{\"access_token\":\"t\"}", "t", 3600},
        {"{\"access_token\":\"t\",\"expires_in\":0}", "t", 0},
        {"{\"access_token\":\"t\",\"expires_in\":9223372036854775807}", "t", 43200},
        {"{\"accessToken\":\"i\",\"expireTime\":\"2026-01-02T04:04:05Z\"}", "i", 3600},
        {"{\"accessToken\":\"i\",\"expireTime\":\"2126-01-02T04:04:05Z\"}", "i", 43200},
        {"{\"accessToken\":\"i\"}", NULL, 0},
        {"{\"accessToken\":\"i\",\"expireTime\":\"soon\"}", NULL, 0},
        {"{\"access_token\":\"t\",\"token_type\":\"mac\"}", NULL, 0},
        {"{\"access_token\":\"\"}", NULL, 0},
        {"{\"access_token\":\"a b\"}", NULL, 0},
        {"{\"access_token\":\"a\\r\\nX: y\"}", NULL, 0},
        {"{\"access_token\":\"\\u00e9\"}", NULL, 0},
        {"{\"access_token\":5}", NULL, 0},
        {"{\"access_token\":\"t\",\"expires_in\":-1}", NULL, 0},
        {"{\"access_token\":\"t\",\"expires_in\":1.5}", NULL, 0},
        {"{\"access_token\":\"t\",\"expires_in\":\"x\"}", NULL, 0},
        {"{\"id_token\":\"t\"}", NULL, 0},
        {"[]", NULL, 0},
        {"", NULL, 0},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_error err = LJ_ERROR_INIT;
        LJ_CLEANUP(lj_token_free) lj_token token = LJ_TOKEN_INIT;
        lj_code code =
            lj_google_answer_parse(rows[i].text, strlen(rows[i].text), now_ns, &token, &err);
        if (rows[i].token == NULL) {
            if (code != LJ_CORRUPT)
                fail_msg("%s: %s", rows[i].text, lj_code_text(code));
            assert_true(err.retryable);
            assert_false(lj_secret_is_set(&token.values[LJ_GOOGLE_BEARER]));
            continue;
        }
        assert_ok(code, &err);
        assert_string_equal(lj_secret_text(&token.values[LJ_GOOGLE_BEARER]), rows[i].token);
        assert_int_equal(token.expires_ns, now_ns + rows[i].life_s * LJ_NS_PER_S);
    }
}

static void refusals(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *shown;
    } rows[] = {
        {"{\"error\":\"invalid_grant\",\"error_description\":\"Bad\\nRequest\"}",
         "invalid_grant: Bad Request"},
        {"{\"error\":\"invalid_client\"}", "invalid_client"},
        {"{\"error_description\":\"only this\"}", "only this"},
        {"{\"error\":{\"code\":403,\"message\":\"no\",\"status\":\"PERMISSION_DENIED\"}}",
         "PERMISSION_DENIED: no"},
        {"{\"error\":5}", ""},
        {"<html>", ""},
        {"", ""},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        char shown[240];
        lj_google_refusal_text(rows[i].text, strlen(rows[i].text), shown, sizeof(shown));
        assert_string_equal(shown, rows[i].shown);
    }
}

static void subjects(void **state)
{
    (void)state;
    static const struct {
        const char *field;
        const char *text;
        const char *subject; /* NULL: refused */
    } rows[] = {{NULL, "abc.def.ghi\n", "abc.def.ghi"},
                {NULL, "  \n", NULL},
                {NULL, "", NULL},
                {"tok", "{\"tok\":\"abc\"}\n", "abc"},
                {"tok", "{\"other\":\"abc\"}", NULL},
                {"tok", "{\"tok\":5}", NULL},
                {"tok", "abc", NULL}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_error err = LJ_ERROR_INIT;
        lj_google_file file = {.kind = LJ_GOOGLE_EXTERNAL_ACCOUNT};
        LJ_CLEANUP(lj_secret_free) lj_secret subject = LJ_SECRET_NONE;
        assert_ok(lj_secret_set(&file.source_field, rows[i].field, &err), &err);
        lj_code code =
            lj_google_subject_parse(&file, rows[i].text, strlen(rows[i].text), &subject, &err);
        if (rows[i].subject == NULL) {
            assert_int_equal(code, LJ_DENIED);
            assert_true(err.retryable);
        } else {
            assert_ok(code, &err);
            assert_string_equal(lj_secret_text(&subject), rows[i].subject);
        }
        lj_google_file_free(&file);
    }
}

static void write_file(const char *path, const char *text)
{
    lj_error err = LJ_ERROR_INIT;
    assert_ok(lj_io_replace_file(path, text, strlen(text), 0600, false, &err), &err);
}

static void what_opening_tells(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_google_provider *provider = NULL;
    char path[128];
    snprintf(path, sizeof(path), "%s/application_default_credentials.json", folder);
    setenv("CLOUDSDK_CONFIG", folder, 1);
    unsetenv("GOOGLE_APPLICATION_CREDENTIALS");
    /* the file of gcloud is taken when it is there, and told to be bad at once */
    write_file(path, "{\"type\":\"authorized_user\",\"client_id\":\"hidden1");
    lj_google_options options = {.credentials_path = NULL};
    assert_int_equal(lj_google_provider_new(&options, &provider, &err), LJ_INVALID);
    assert_non_null(strstr(err.message, path));
    assert_null(strstr(err.message, "hidden"));
    write_file(path, "{\"type\":\"gdch_service_account\"}");
    assert_int_equal(lj_google_provider_new(&options, &provider, &err), LJ_UNSUPPORTED);
    /* the environment's beats it, and what is given beats both; a file that is missing may come */
    setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent/env.json", 1);
    const char *const given[] = {NULL, "/nonexistent/given.json"};
    const char *const named[] = {"/nonexistent/env.json", "/nonexistent/given.json"};
    for (size_t i = 0; i < 2; i++) {
        options.credentials_path = given[i];
        assert_ok(lj_google_provider_new(&options, &provider, &err), &err);
        lj_token token = LJ_TOKEN_INIT;
        assert_int_equal(lj_token_get(lj_google_provider_token(provider), &token, &err), LJ_DENIED);
        assert_true(err.retryable);
        assert_non_null(strstr(err.message, named[i]));
        assert_non_null(strstr(err.hint, "credentials-path"));
        lj_google_provider_free(provider);
    }
    /* two replicas of the same file share the source */
    lj_google_provider *other = NULL;
    assert_ok(lj_google_provider_new(&options, &provider, &err), &err);
    assert_ok(lj_google_provider_new(&options, &other, &err), &err);
    assert_ptr_equal(lj_google_provider_token(provider), lj_google_provider_token(other));
    lj_google_provider_free(provider);
    lj_google_provider_free(other);
    unlink(path);
}

static void no_credentials_at_all(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_google_provider *provider = NULL;
    lj_google_options options = {.io_timeout_ns = 2 * LJ_NS_PER_S};
    lj_token token = LJ_TOKEN_INIT;
    setenv("CLOUDSDK_CONFIG", "/nonexistent", 1);
    unsetenv("GOOGLE_APPLICATION_CREDENTIALS");
    setenv("GCE_METADATA_HOST", "127.0.0.1:1", 1); /* nobody listens there */
    assert_ok(lj_google_provider_new(&options, &provider, &err), &err);
    int64_t start_ns = lj_clock_mono_ns();
    assert_int_equal(lj_token_get(lj_google_provider_token(provider), &token, &err), LJ_DENIED);
    assert_true(lj_clock_mono_ns() - start_ns < 5 * LJ_NS_PER_S);
    assert_true(err.retryable);
    assert_non_null(strstr(err.hint, "GOOGLE_APPLICATION_CREDENTIALS"));
    assert_non_null(strstr(err.hint, "gcloud auth"));
    assert_non_null(strstr(err.hint, "service account"));
    lj_google_provider_free(provider);
    setenv("GCE_METADATA_HOST", "host/path", 1);
    assert_int_equal(lj_google_provider_new(&options, &provider, &err), LJ_INVALID);
    unsetenv("GCE_METADATA_HOST");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_files),
        cmocka_unit_test(bad_files),
        cmocka_unit_test(safe_urls),
        cmocka_unit_test(jwt_is_signed),
        cmocka_unit_test(answers),
        cmocka_unit_test(refusals),
        cmocka_unit_test(subjects),
        cmocka_unit_test(what_opening_tells),
        cmocka_unit_test(no_credentials_at_all),
    };
    return cmocka_run_group_tests_name("google", tests, make_key, free_key);
}

/*
 * fuzz_azure.c - Azure's connection strings, endpoints and the answers of its token endpoints. The first byte chooses: 0 an answer
 * with a token, 1 a connection string, 2 an endpoint, 3 a refusal.
 */
#include "test/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "vfs/base/buf.h"
#include "vfs/storage/auth/azure_internal.h"
#include "vfs/storage/auth/azure_token.h"

static void read_token(const uint8_t *data, size_t size)
{
    lj_error err = LJ_ERROR_INIT;
    lj_token token = {.expires_ns = 0};
    lj_code code = lj_azure_token_parse((const char *)data, size, INT64_C(1700000000) * LJ_NS_PER_S,
                                        &token, &err);
    if (code == LJ_OK)
        FUZZ_CHECK(lj_secret_is_set(&token.values[0]));
    else
        FUZZ_CHECK(code != LJ_CORRUPT && code != LJ_NOTFOUND && err.message[0] != 0);
    lj_token_free(&token);
}

static void read_connection(const char *text)
{
    lj_error err = LJ_ERROR_INIT;
    lj_azure_connection connection;
    memset(&connection, 0, sizeof(connection));
    if (lj_azure_connection_parse(text, &connection, &err) != LJ_OK) {
        FUZZ_CHECK(err.message[0] != 0);
        return;
    }
    if (connection.endpoint != NULL) {
        size_t len = strlen(connection.endpoint);
        FUZZ_CHECK(len == 0 || connection.endpoint[len - 1] != '/');
    }
    lj_azure_connection_free(&connection);
}

static void read_endpoint(const char *text)
{
    char *account = lj_azure_account_of_endpoint(text);
    FUZZ_CHECK(account == NULL || (account[0] != 0 && strstr(text, account) != NULL));
    FUZZ_CHECK(!lj_azure_is_exposed(text) || strncmp(text, "https://", 8) != 0);
    free(account);
}

static void read_refusal(const uint8_t *data, size_t size)
{
    lj_error err = LJ_ERROR_INIT;
    lj_http_response response = {
        .status = 400, .headers = LJ_BUF_INIT(4096), .body = LJ_BUF_INIT((size_t)1 << 20)};
    if (lj_buf_append(&response.body, data, size, &err) == LJ_OK) {
        for (int managed = 0; managed < 2; managed++) {
            lj_code code = lj_azure_token_refused(&response, managed != 0, &err);
            FUZZ_CHECK(code != LJ_OK && code != LJ_CORRUPT && code != LJ_NOTFOUND);
            FUZZ_CHECK(err.message[0] != 0);
        }
    }
    lj_buf_free(&response.body);
    lj_buf_free(&response.headers);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] % 4 == 0) {
        read_token(data + 1, size - 1);
        return 0;
    }
    if (data[0] % 4 == 3) {
        read_refusal(data + 1, size - 1);
        return 0;
    }
    char *text = malloc(size);
    if (text == NULL)
        return 0;
    memcpy(text, data + 1, size - 1);
    text[size - 1] = 0;
    if (data[0] % 4 == 1)
        read_connection(text);
    else
        read_endpoint(text);
    free(text);
    return 0;
}

/* azure_env.h - an environment in which nothing is said about Azure, whatever the machine has. */
#ifndef LJ_TEST_AZURE_ENV_H
#define LJ_TEST_AZURE_ENV_H

#include <stdlib.h>

#include "vfs/base/base.h"

static inline void azure_env_clear(void)
{
    static const char *const names[] = {"AZURE_STORAGE_ACCOUNT",
                                        "AZURE_STORAGE_KEY",
                                        "AZURE_STORAGE_CONNECTION_STRING",
                                        "AZURE_STORAGE_SAS_TOKEN",
                                        "LITESTREAM_AZURE_ACCOUNT_KEY",
                                        "AZURE_TENANT_ID",
                                        "AZURE_CLIENT_ID",
                                        "AZURE_CLIENT_SECRET",
                                        "AZURE_CLIENT_CERTIFICATE_PATH",
                                        "AZURE_AUTHORITY_HOST",
                                        "AZURE_FEDERATED_TOKEN_FILE",
                                        "AZURE_POD_IDENTITY_AUTHORITY_HOST",
                                        "IDENTITY_ENDPOINT",
                                        "IDENTITY_HEADER",
                                        "IDENTITY_SERVER_THUMBPRINT",
                                        "MSI_ENDPOINT"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(names); i++)
        unsetenv(names[i]);
}

#endif

"""Vendors' token formats: what they look like, which bytes are secret, and the checksum where a format has one.

The shapes are those that the vendors document or that public secret scanners agree on; a checksum is tested wherever
its algorithm is published (`format_checks`). A token whose checksum is wrong cannot work, so it is no finding, and
neither is one that is plainly made up (`lookalikes.made_up`).

Not here: formats without any mark of their own (32 hexadecimal digits of Datadog or Twilio); `assignments` finds those
by the name they are assigned to.
"""

from __future__ import annotations

from kringle.pii.format_checks import (
    atlassian_checksum,
    aws_base32,
    base58_checksum,
    bech32_checksum,
    discord_id,
    encrypted_header,
    github_checksum,
    grafana_checksum,
    json_header,
    json_payload,
    percent_encoded,
    unknown,
)
from kringle.pii.format_shapes import (
    ALNUM,
    ANYHEX,
    BASE32,
    BASE58,
    BASE64,
    BECH32,
    CERTAIN,
    DISTINCT,
    HEX,
    LIKELY,
    LOWER,
    UPPER,
    URL64,
    Format,
    checked,
    inner,
    prefixed,
)

# Base 64 of a brace and a quote, a space, or a line break: how a JSON object begins
_JSON_STARTS = ("eyJ", "eyA", "ewo", "ew0")

# Base 64 of "-----BEGIN PRIVATE KEY" and of those of RSA, EC, OpenSSH, encrypted and DSA keys, as Kubernetes keeps them
_ARMOUR_IN_BASE64 = (
    "LS0tLS1CRUdJTiBQUklWQVRFIEtFW "
    "LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRV "
    "LS0tLS1CRUdJTiBFQyBQUklWQVRFIEtFW "
    "LS0tLS1CRUdJTiBPUEVOU1NIIFBSSVZBVEUgS0VZ "
    "LS0tLS1CRUdJTiBFTkNSWVBURUQgUFJJVkFURSBLRV "
    "LS0tLS1CRUdJTiBEU0EgUFJJVkFURSBLRV"
)

FORMATS: tuple[Format, ...] = (
    *prefixed("private-key-in-base64", _ARMOUR_IN_BASE64, BASE64, 40, 20_000, tail="={0,2}"),
    # Clouds
    *(row._replace(genuine=aws_base32) for row in prefixed("aws-access-key-id", "AKIA ASIA ABIA ACCA", UPPER, 16)),
    *prefixed("aws-bedrock-key", "ABSK", BASE64, 109, 269, tail="={0,2}"),
    # Short-lived keys begin with "bedrock.amazonaws.com" in base 64 (gitleaks)
    *prefixed("aws-bedrock-key", "bedrock-api-key-YmVkcm9jay5hbWF6b25hd3MuY29t", BASE64, 20, 4000, tail="={0,2}"),
    *prefixed("gcp-api-key", "AIza", URL64, 35),
    *prefixed("gcp-oauth-secret", "GOCSPX-", URL64, 28),
    *prefixed("gcp-access-token", "ya29.", URL64, 30, 1024),
    *prefixed("gcp-refresh-token", "1//0", URL64, 38, 200),
    inner(
        "azure-client-secret",
        (4,),
        "Q~[A-Za-z0-9_~.-]{8}",
        10,
        r"([A-Za-z0-9_~.]{3})[0-9]Q~([A-Za-z0-9_~.-]{31,34})(?![A-Za-z0-9_~-])",
        DISTINCT,
    ),
    inner(
        "azure-devops-token",
        (76,),
        "AZDO[A-Za-z0-9]{4}",
        8,
        r"([A-Za-z0-9]{76})AZDO([A-Za-z0-9]{4})(?![A-Za-z0-9])",
        DISTINCT,
    ),
    inner(
        "azure-key",
        (52,),
        "JQQJ9[9D][A-Za-z0-9]{4}",
        10,
        r"([A-Za-z0-9]{52})JQQJ9[9D]([A-Za-z0-9]{26})(?![A-Za-z0-9])",
        DISTINCT,
    ),
    # Azure's keys of 64 and 32 bytes that carry the name of their service
    inner("azure-key", (76,), r"\+ASt[A-Za-z0-9+/]{4}", 8, r"([A-Za-z0-9+/]{76})\+ASt([A-Za-z0-9+/]{6})==", DISTINCT),
    inner("azure-key", (76,), "ACDb[A-Za-z0-9+/]{4}", 8, r"([A-Za-z0-9+/]{76})ACDb([A-Za-z0-9+/]{6})==", DISTINCT),
    inner("azure-key", (44,), "AzFu[A-Za-z0-9_-]{4}", 8, r"([A-Za-z0-9_-]{44})AzFu([A-Za-z0-9_-]{6})==", DISTINCT),
    inner("azure-key", (42,), "AzSe[A-D][A-Za-z0-9]{4}", 9, r"([A-Za-z0-9]{42})AzSe[A-D]([A-Za-z0-9]{5})", DISTINCT),
    inner(
        "azure-key", (42,), r"\+ACR[A-D][A-Za-z0-9]{4}", 9, r"([A-Za-z0-9+/]{42})\+ACR[A-D]([A-Za-z0-9]{5})", DISTINCT
    ),
    *(
        inner(
            "azure-key",
            (33,),
            rf"{mark}[A-Za-z0-9+/]{{4}}",
            8,
            rf"([A-Za-z0-9+/]{{33}}){mark}([A-Za-z0-9+/]{{6}})=",
            LIKELY,
        )
        for mark in (r"\+ASb", r"\+AEh", "AIoT")
    ),
    *prefixed("aws-mws-token", "amzn.mws.", HEX, 8, tail="-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{12})"),
    *prefixed("amazon-client-secret", "amzn1.oa2-cs.v1.", HEX, 64),
    *prefixed("yandex-token", "y0_", URL64, 55, 62, confidence=LIKELY),
    *prefixed("yandex-token", "t1.", URL64, 80, 300, tail=r"\.([A-Za-z0-9_-]{86})={0,2}", confidence=LIKELY),
    *prefixed("openshift-token", "sha256~", URL64, 43),
    *prefixed("vercel-blob-token", "vercel_blob_rw_", ALNUM, 16, tail="_([A-Za-z0-9]{30,40})"),
    *prefixed("boundary-token", "at_", ALNUM, 10, tail="_([A-Za-z0-9]{100,400})", confidence=LIKELY),
    *prefixed("scalingo-token", "tk-us-", URL64, 48),
    *prefixed("infracost-key", "ico-", ALNUM, 32, confidence=LIKELY),
    *prefixed("digitalocean-token", "dop_v1_ doo_v1_ dor_v1_", HEX, 64),
    *prefixed("alibaba-access-key-id", "LTAI", ALNUM, 12, 20, confidence=LIKELY),
    *prefixed("tencent-secret-id", "AKID", ALNUM, 32, confidence=LIKELY),
    *prefixed("yandex-api-key", "AQVN", URL64, 35, 38, confidence=LIKELY),
    *prefixed("heroku-key", "HRKU-AA", URL64, 58),
    *prefixed("cloudflare-origin-key", "v1.0-", HEX, 24, tail="-([0-9a-f]{146})"),
    *prefixed("vault-token", "hvs. hvb. hvr.", URL64, 24, 300),
    *prefixed("vault-token", "s.", ALNUM, 24, confidence=LIKELY),
    *prefixed("doppler-token", "dp.pt. dp.ct. dp.sa. dp.scim. dp.audit.", ALNUM, 40, 44),
    inner(  # a service token may hold the name of its configuration
        "doppler-token",
        (0,),
        r"dp\.st\.[A-Za-z0-9_-]{2}",
        8,
        r"dp\.st\.(?:[a-z0-9_-]{2,35}\.)?([A-Za-z0-9]{40,44})(?![A-Za-z0-9])",
        DISTINCT,
    ),
    # Fly.io's own redaction of its logs knows these prefixes (flyctl); lengths: gitleaks
    *prefixed("fly-token", "fo1_", URL64, 43),
    *prefixed("fly-token", "fm1a_ fm1r_ fm2_", BASE64, 100, 4000, tail="={0,3}"),
    *prefixed("pulumi-token", "pul-", HEX, 40),
    *prefixed("tailscale-key", "tskey-auth- tskey-api- tskey-client-", ALNUM, 8, 24, tail="-([A-Za-z0-9]{20,40})"),
    inner(
        "terraform-token",
        (14,),
        r"\.atlasv1\.",
        9,
        r"([A-Za-z0-9]{14})\.atlasv1\.([A-Za-z0-9_-]{60,70})(?![A-Za-z0-9_-])",
        DISTINCT,
    ),
    *prefixed("supabase-token", "sbp_", HEX, 40),
    *prefixed("supabase-token", "sb_secret_", URL64, 22, tail="_([A-Za-z0-9_-]{8})"),
    *prefixed("planetscale-token", "pscale_tkn_ pscale_oauth_ pscale_pw_", r"A-Za-z0-9_.-", 32, 64),
    *prefixed("netlify-token", "nfp_", ALNUM, 36),
    *prefixed("databricks-token", "dapi", HEX, 32),
    *(
        row._replace(alphabet=BASE32)
        for row in prefixed("dynatrace-token", "dt0c01. dt0s01.", "A-Z2-7", 24, tail=r"\.([A-Z2-7]{64})")
    ),
    # Code hosting and packages
    *prefixed("github-token", "ghp_ gho_ ghu_ ghs_ ghr_", ALNUM, 36, confidence=CERTAIN, check=github_checksum),
    *prefixed("github-token", "ghr_", ALNUM, 76, confidence=CERTAIN, check=github_checksum),
    *prefixed(
        "github-token",
        "ghs_",
        "0-9",
        1,
        12,
        tail=r"_eyJ[A-Za-z0-9_-]{8,1000}\.eyJ([A-Za-z0-9_-]{5,2000})\.([A-Za-z0-9_-]{20,800})",
    ),
    *prefixed("github-fine-grained-token", "github_pat_", ALNUM, 22, tail="_([A-Za-z0-9]{59})(?![A-Za-z0-9])"),
    *prefixed(
        "gitlab-token",
        "glpat- gldt- glrt- glrtr- glwt- glft- glsoat- glffct- glimt- gloas-",
        URL64,
        20,
        300,
        tail=r"(\.[0-9a-z]{2}\.[0-9a-z]{9})?",
    ),
    *prefixed("gitlab-trigger-token", "glptt-", HEX, 40),
    *prefixed("gitlab-job-token", "glcbt-", ALNUM, 1, 5, tail=r"_([A-Za-z0-9_-]{20,64})"),
    *prefixed("gitlab-agent-token", "glagent-", URL64, 50, 64),
    *prefixed("gitlab-runner-token", "GR1348941", URL64, 20),
    *prefixed("npm-token", "npm_", ALNUM, 36, confidence=CERTAIN, check=github_checksum),
    *prefixed("pypi-token", "pypi-AgEIcHlwaS5vcmc pypi-AgENdGVzdC5weXBpLm9yZw", URL64, 50, 1000),
    *prefixed("rubygems-key", "rubygems_", HEX, 48),
    *prefixed("crates-token", "cio", ALNUM, 32, confidence=LIKELY),
    *prefixed("nuget-key", "oy2", LOWER, 43, confidence=LIKELY),
    *prefixed("clojars-token", "CLOJARS_", LOWER, 60),
    *prefixed("docker-token", "dckr_pat_ dckr_oat_", URL64, 27, 32),
    *prefixed("artifactory-key", "AKCp", ALNUM, 69),
    *prefixed("artifactory-reference-token", "cmVmdGtuOj", ALNUM, 54, 58),
    *prefixed(
        "atlassian-token", "ATATT3 ATCTT3", r"A-Za-z0-9_=-", 100, 300, confidence=CERTAIN, check=atlassian_checksum
    ),
    *prefixed("bitbucket-app-password", "ATBB", ALNUM, 32, confidence=CERTAIN, check=atlassian_checksum),
    *prefixed("circleci-token", "CCIPAT_ CCIPRJ_", ALNUM, 22, tail="_([0-9a-f]{40})"),
    *prefixed("buildkite-token", "bkua_", HEX, 40),
    *prefixed("sonarqube-token", "sqp_ squ_ sqa_", HEX, 40),
    *prefixed("sentry-token", "sntryu_", HEX, 64),
    *prefixed("sentry-token", "sntrys_eyJ", r"A-Za-z0-9+/=", 20, 500, tail="_([A-Za-z0-9+/]{43})"),
    *prefixed("sourcegraph-token", "sgp_", HEX, 16, tail="_([0-9a-f]{40})"),
    *prefixed("sourcegraph-token", "sgp_", HEX, 40),
    *prefixed("wakatime-key", "waka_", HEX, 8, tail="-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{12})"),
    *prefixed(
        "launchdarkly-key", "sdk- api-", HEX, 8, tail="-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{12})"
    ),
    *prefixed("octopus-key", "API-", UPPER, 26, confidence=LIKELY),
    *prefixed("harness-token", "pat. sat.", URL64, 22, tail=r"\.([0-9a-f]{24})\.([A-Za-z0-9]{20})"),
    *prefixed("apify-token", "apify_api_", ALNUM, 36),
    *prefixed("postman-key", "PMAK-", HEX, 24, tail="-([0-9a-f]{34})"),
    *prefixed("readme-key", "rdme_", LOWER, 70),
    *prefixed("prefect-key", "pnu_", ALNUM, 36),
    # Payment and commerce
    *prefixed("stripe-key", "sk_live_ rk_live_ sk_test_ rk_test_ sk_org_live_ sk_org_test_", ALNUM, 16, 247),
    *prefixed("stripe-webhook-secret", "whsec_", r"A-Za-z0-9+/", 32, 64, tail="={0,2}"),
    *prefixed("square-token", "sq0atp-", URL64, 22),
    *prefixed("square-secret", "sq0csp-", URL64, 43),
    *prefixed("square-token", "EAAA", URL64, 60, confidence=LIKELY),
    *prefixed("shopify-token", "shpat_ shpca_ shppa_ shpss_", ANYHEX, 32),
    *prefixed("braintree-token", "access_token$production$", LOWER, 16, tail=r"\$([0-9a-f]{32})"),
    *prefixed("flutterwave-key", "FLWSECK- FLWSECK_TEST-", ANYHEX, 32, tail="-X"),
    *prefixed("shippo-token", "shippo_live_ shippo_test_", HEX, 40),
    *prefixed("duffel-token", "duffel_live_ duffel_test_", URL64, 43),
    *prefixed(
        "plaid-token",
        "access-production- access-sandbox- access-development-",
        HEX,
        8,
        tail="-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{12})",
    ),
    *prefixed("paddle-key", "pdl_live_apikey_ pdl_sdbx_apikey_", LOWER, 26, tail="_([A-Za-z0-9]{22})_([A-Za-z0-9]{3})"),
    *prefixed("polar-token", "polar_oat_ polar_pat_", ALNUM, 40, 60),
    *prefixed("settlemint-token", "sm_pat_ sm_aat_ sm_sat_", ALNUM, 16),
    *prefixed("gocardless-token", "live_", URL64, 40, confidence=LIKELY),
    *prefixed("lob-key", "live_ test_", HEX, 35, confidence=LIKELY),
    *prefixed("easypost-key", "EZAK EZTK", ALNUM, 54),
    # Messages and mail
    *prefixed("slack-token", "xoxb- xoxp- xoxa- xoxr- xoxs- xoxe- xoxc- xoxd-", "A-Za-z0-9%-", 20, 255),
    *prefixed("slack-app-token", "xapp-", "A-Za-z0-9-", 50, 255),
    *prefixed("slack-configuration-token", "xoxe.xoxp- xoxe.xoxb-", "A-Za-z0-9-", 50, 255),
    *prefixed(
        "slack-webhook",
        "https://hooks.slack.com/workflows/",
        UPPER,
        8,
        14,
        tail="/([A-Z0-9]{8,14})/([0-9]{10,20})/([A-Za-z0-9]{20,32})(?![A-Za-z0-9])",
    ),
    *prefixed(
        "slack-webhook",
        "https://hooks.slack.com/triggers/",
        UPPER,
        8,
        14,
        tail="/([0-9]{10,20})/([0-9a-f]{32})(?![0-9a-f])",
    ),
    *prefixed(
        "slack-webhook",
        "https://hooks.slack.com/services/",
        UPPER,
        8,
        14,
        tail="/([A-Z0-9]{8,14})/([A-Za-z0-9]{20,32})(?![A-Za-z0-9])",
    ),
    *prefixed(
        "discord-webhook",
        " ".join(
            f"https://{host}/api/{version}webhooks/"
            for host in ("discord.com", "discordapp.com", "canary.discord.com", "ptb.discord.com")
            for version in ("", "v6/", "v7/", "v8/", "v9/", "v10/")
        ),
        "0-9",
        17,
        20,
        tail="/([A-Za-z0-9_-]{60,80})(?![A-Za-z0-9_-])",
    ),
    checked(
        inner(
            "discord-bot-token",
            (24, 25, 26, 28, 23),
            r"\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27}",
            35,
            r"([A-Za-z0-9_-]{23,28})\.([A-Za-z0-9_-]{6})\.([A-Za-z0-9_-]{27,38})(?![A-Za-z0-9_-])",
            DISTINCT,
        ),
        discord_id,
    ),
    *prefixed("discord-token", "mfa.", URL64, 84),
    inner(
        "teams-webhook",
        tuple(range(28, 58)),
        "/webhookb2/[0-9a-f]{4}",
        15,
        r"https://[a-z0-9-]{1,30}\.webhook\.office\.com/webhookb2/[0-9a-f-]{36}@[0-9a-f-]{36}"
        r"/IncomingWebhook/([0-9a-f]{32})/([0-9a-f-]{36})",
        DISTINCT,
    ),
    inner(
        "telegram-bot-token",
        (10, 9, 8),
        ":A[A-Za-z0-9_-]{34}",
        36,
        r"([0-9]{8,10}):A([A-Za-z0-9_-]{34})(?![A-Za-z0-9_-])",
        DISTINCT,
    ),
    *prefixed("twilio-key", "SK", HEX, 32),
    *prefixed("twilio-account-sid", "AC", HEX, 32),
    inner(
        "firebase-server-key",
        (11,),
        ":APA91b",
        7,
        r"([A-Za-z0-9_-]{11}):APA91b([A-Za-z0-9_-]{134})(?![A-Za-z0-9_-])",
        DISTINCT,
    ),
    *prefixed("sendgrid-key", "SG.", URL64, 22, tail=r"\.([A-Za-z0-9_-]{43})(?![A-Za-z0-9_-])"),
    *prefixed("brevo-key", "xkeysib-", HEX, 64, tail="-([A-Za-z0-9]{16})"),
    *prefixed("mailgun-key", "key-", HEX, 32, confidence=LIKELY),
    # Mailgun's keys since 2018: 32, 8 and 8 hexadecimal digits (gitleaks)
    inner(
        "mailgun-key",
        (0,),
        "[0-9a-f]{32}-[0-9a-f]{8}-[0-9a-f]{8}",
        50,
        "([0-9a-f]{32})-([0-9a-f]{8})-([0-9a-f]{8})(?![A-Za-z0-9-])",
        LIKELY,
    ),
    inner("mailchimp-key", (32,), "-us[0-9]", 4, r"([0-9a-f]{32})-us[0-9]{1,2}(?![0-9a-z])", DISTINCT),
    *prefixed("facebook-token", "EAACEdEose0cBA", ALNUM, 60, 300),
    *prefixed("facebook-token", "EAA", ALNUM, 100, 300, confidence=LIKELY),
    inner(
        "facebook-token",
        (16, 15),
        r"\|[A-Za-z0-9_-]{27}",
        28,
        r"[0-9]{15,16}\|([A-Za-z0-9_-]{27})(?![A-Za-z0-9_-])",
        DISTINCT,
    ),
    *prefixed("twitch-token", "oauth:", LOWER, 30, confidence=LIKELY),
    *prefixed("resend-key", "re_", ALNUM, 8, tail="_([A-Za-z0-9]{24})", confidence=LIKELY),
    # Models
    *prefixed("openai-key", "sk-", ALNUM, 20, tail="T3BlbkFJ([A-Za-z0-9]{20})(?![A-Za-z0-9])"),
    *prefixed("openai-key", "sk-proj- sk-svcacct- sk-admin- sk-None-", URL64, 40, 300),
    *prefixed("anthropic-key", "sk-ant-api03- sk-ant-admin01- sk-ant-oat01- sk-ant-sid01-", URL64, 80, 120),
    *prefixed("huggingface-token", "hf_ api_org_", ALNUM, 34),
    *prefixed("openrouter-key", "sk-or-v1-", HEX, 64),
    *prefixed("groq-key", "gsk_", ALNUM, 52),
    *prefixed("replicate-token", "r8_", ALNUM, 37),
    *prefixed("perplexity-key", "pplx-", ALNUM, 48),
    *prefixed("xai-key", "xai-", ALNUM, 80),
    *prefixed("nvidia-key", "nvapi-", URL64, 64),
    *prefixed("deepseek-key", "sk-", HEX, 32),
    *prefixed("elevenlabs-key", "sk_", HEX, 48),
    *prefixed("fireworks-key", "fw_", ALNUM, 22, 24, confidence=LIKELY),
    *prefixed("tavily-key", "tvly-dev- tvly-prod- tvly-", ALNUM, 32),
    *prefixed("pinecone-key", "pcsk_", ALNUM, 5, 7, tail="_([A-Za-z0-9]{60,66})"),
    *prefixed("langfuse-key", "sk-lf-", HEX, 8, tail="-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{12})"),
    *prefixed("runpod-key", "rpa_", ALNUM, 40, 50),
    *prefixed("cerebras-key", "csk-", LOWER, 48),
    *prefixed("wandb-key", "wandb_v1_", URL64, 60, 90),
    *prefixed("langsmith-key", "lsv2_pt_ lsv2_sk_", HEX, 32, tail="_([0-9a-f]{10})"),
    # Work and observation
    *prefixed(
        "grafana-service-account-token",
        "glsa_",
        ALNUM,
        32,
        tail="_([0-9a-fA-F]{8})(?![0-9a-zA-Z])",
        confidence=CERTAIN,
        check=grafana_checksum,
    ),
    *prefixed("grafana-cloud-token", "glc_", BASE64, 32, 400, tail="={0,2}"),
    *prefixed("grafana-key", "eyJrIjoi", ALNUM, 60, 400, tail="={0,2}"),
    *prefixed("newrelic-key", "NRAK-", UPPER, 27),
    *prefixed("newrelic-key", "NRII- NRRA-", URL64, 32, 42),
    inner("newrelic-key", (36,), "NRAL", 4, r"([0-9a-z]{6})([0-9a-f]{30})NRAL(?![A-Za-z0-9])", LIKELY),
    *prefixed("clickup-token", "pk_", "0-9", 6, 9, tail="_([A-Z0-9]{32})(?![A-Za-z0-9])"),
    *prefixed("linear-key", "lin_api_", ALNUM, 40),
    *prefixed("linear-key", "lin_oauth_", HEX, 64),
    *prefixed("notion-token", "ntn_", ALNUM, 46),
    *prefixed("notion-token", "secret_", ALNUM, 43),
    *prefixed("airtable-token", "pat", ALNUM, 14, tail=r"\.([0-9a-f]{64})"),
    *prefixed("figma-token", "figd_", URL64, 40),
    *prefixed("contentful-token", "CFPAT-", URL64, 43),
    *prefixed(
        "hubspot-token", "pat-na1- pat-eu1-", HEX, 8, tail="-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{12})"
    ),
    *prefixed("typeform-token", "tfp_", URL64, 40, 60),
    *prefixed("dropbox-token", "sl.", URL64, 130, 300),
    *prefixed("asana-token", "0/ 1/", "0-9", 12, 17, tail=":([0-9a-f]{32})(?![0-9a-f])"),
    *prefixed("zoho-token", "1000.", HEX, 32, tail=r"\.([0-9a-f]{32})(?![0-9a-f])"),
    *prefixed("frameio-token", "fio-u-", URL64, 64),
    *prefixed("intra42-secret", "s-s4t2ud- s-s4t2af-", HEX, 64),
    *prefixed("onepassword-token", "ops_eyJ", "A-Za-z0-9+/_-", 200, 4000, tail="={0,2}"),
    inner("maxmind-key", (36,), "_mmk", 4, r"([A-Za-z0-9]{6}_[A-Za-z0-9]{29})_mmk(?![A-Za-z0-9_])", DISTINCT),
    *prefixed("adafruit-key", "aio_", ALNUM, 28),
    *prefixed("mapbox-secret-token", "sk.eyJ", URL64, 60, 200, tail=r"\.([A-Za-z0-9_-]{22})"),
    *(
        row._replace(check=percent_encoded, genuine=unknown)
        for row in prefixed("twitter-bearer-token", "AAAAAAAAAAAAAAAAAAAAA", "A-Za-z0-9%", 80, 120, confidence=LIKELY)
    ),
    # Keys
    *(
        row._replace(alphabet=BASE58, check=base58_checksum)
        for row in prefixed("extended-private-key", "xprv tprv yprv zprv", BASE58, 107, confidence=CERTAIN)
    ),
    *(
        row._replace(alphabet=BECH32, check=bech32_checksum)
        for row in prefixed("age-secret-key", "AGE-SECRET-KEY-1", BECH32, 58, confidence=CERTAIN)
    ),
    *(
        inner(
            "json-web-token",
            (0,),
            f"{header}[A-Za-z0-9_-]{{4}}",
            7,
            rf"{header}[A-Za-z0-9_-]{{8,2000}}\.(?:eyJ|eyA|ewo|ew0)([A-Za-z0-9_-]{{5,8000}})\.([A-Za-z0-9_-]{{20,2000}})(?![A-Za-z0-9_-])",
            DISTINCT,
        )._replace(check=json_header, genuine=json_payload, not_after=b"-")
        for header in _JSON_STARTS
    ),
    *(
        inner(
            "encrypted-web-token",
            (0,),
            f"{header}[A-Za-z0-9_-]{{4}}",
            7,
            rf"{header}[A-Za-z0-9_-]{{8,2000}}\.([A-Za-z0-9_-]{{0,2000}})\.([A-Za-z0-9_-]{{16,32}})\."
            r"([A-Za-z0-9_-]{1,8000})\.([A-Za-z0-9_-]{16,43})(?![A-Za-z0-9_-])",
            DISTINCT,
        )._replace(check=encrypted_header, genuine=unknown, not_after=b"-")
        for header in _JSON_STARTS
    ),
)

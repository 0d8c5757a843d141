"""Keys of clouds, services and files, beside what `secrets` has. PURE."""

from __future__ import annotations

from compliance.recognizers import checks
from compliance.recognizers.base import Recognizer
from compliance.recognizers.secrets import token


def _assigned(name: str, subtype: str, label: str, value: str, source: str) -> Recognizer:
    """A value that only the name it is assigned to gives away."""
    return Recognizer(
        name=name,
        type="SECRET",
        subtype=subtype,
        pattern=rf"(?<![a-z])(?:{label})['\"]?\]? {{0,3}}(?::=|=>|[:=]) {{0,3}}['\"]?"
        rf"(?P<v>{value})(?![A-Za-z0-9+/=])",
        hint=rf"(?:{label})['\"]?\]? {{0,3}}[:=]",
        source=source,
        score=(0.95, 0.97),
        check=checks.random_looking,
        case=False,
        veto=False,
    )


CLOUD = (
    token(
        "azure_ad_secret",
        "AZURE_KEY",
        r"[A-Za-z0-9_~.\-]{3}[78]Q~[A-Za-z0-9_~.\-]{31,34}",
        "Microsoft Entra client secrets",
    ),
    token(
        "azure_sas",
        "AZURE_KEY",
        r"sig=[A-Za-z0-9%+/]{40,90}(?:%3D|=){0,2}",
        "Azure shared access signatures",
    ),
    token(
        "azure_devops_webhook",
        "WEBHOOK",
        r"https://[a-z0-9\-]{1,60}\.webhook\.office\.com/webhookb2/[A-Za-z0-9@/\-]{36,250}",
        "Microsoft Teams incoming webhooks",
    ),
    token(
        "discord_webhook",
        "WEBHOOK",
        r"https://(?:ptb\.|canary\.)?discord(?:app)?\.com/api/webhooks/[0-9]{15,21}/"
        r"[A-Za-z0-9_\-]{40,90}",
        "Discord webhooks",
    ),
    token(
        "cn_webhook",
        "WEBHOOK",
        r"https://(?:oapi\.dingtalk\.com/robot/send\?access_token=[a-f0-9]{64}"
        r"|qyapi\.weixin\.qq\.com/cgi-bin/webhook/send\?key=[a-f0-9\-]{36}"
        r"|open\.(?:feishu\.cn|larksuite\.com)/open-apis/bot/v2/hook/[a-f0-9\-]{36})",
        "DingTalk, WeCom and Feishu robots",
    ),
    token(
        "discord_token",
        "DISCORD_TOKEN",
        r"[MNO][A-Za-z0-9_\-]{23,27}\.[A-Za-z0-9_\-]{6}\.[A-Za-z0-9_\-]{27,38}",
        "Discord bot tokens",
    ),
    token(
        "gcp_oauth_client", "GOOGLE_OAUTH", r"1//0[A-Za-z0-9_\-]{30,120}", "Google refresh tokens"
    ),
    token(
        "doppler_token",
        "DOPPLER_TOKEN",
        r"dp\.(?:pt|st|ct|sa)\.[A-Za-z0-9]{40,50}",
        "Doppler tokens",
    ),
    token(
        "databricks_token", "DATABRICKS_TOKEN", r"dapi[a-f0-9]{32}(?:-[0-9])?", "Databricks tokens"
    ),
    token("linear_key", "LINEAR_KEY", r"lin_api_[A-Za-z0-9]{40}", "Linear API keys"),
    token("notion_token", "NOTION_TOKEN", r"(?:ntn_|secret_)[A-Za-z0-9]{40,50}", "Notion tokens"),
    token("atlassian_token", "ATLASSIAN_TOKEN", r"ATATT3[A-Za-z0-9_\-=]{180,220}", "Atlassian"),
    token("grafana_token", "GRAFANA_TOKEN", r"gl(?:sa|c)_[A-Za-z0-9_]{32,120}", "Grafana tokens"),
    token("newrelic_key", "NEWRELIC_KEY", r"NRAK-[A-Z0-9]{27}", "New Relic user keys"),
    token("sentry_token", "SENTRY_TOKEN", r"sntr[yu]s?_[A-Za-z0-9+/=_\-]{40,200}", "Sentry tokens"),
    token("mailgun_key", "MAILGUN_KEY", r"key-[a-f0-9]{32}", "Mailgun API keys"),
    token("mailchimp_key", "MAILCHIMP_KEY", r"[a-f0-9]{32}-us[0-9]{1,2}", "Mailchimp API keys"),
    token(
        "square_token", "SQUARE_TOKEN", r"(?:sq0(?:atp|csp)-[A-Za-z0-9_\-]{22,43})", "Square tokens"
    ),
    token("dockerhub_token", "DOCKER_TOKEN", r"dckr_pat_[A-Za-z0-9_\-]{27,40}", "Docker Hub"),
    token(
        "terraform_token",
        "TERRAFORM_TOKEN",
        r"[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9]{60,70}",
        "HCP Terraform API tokens",
    ),
    token("supabase_key", "SUPABASE_KEY", r"sb[ps]_[a-f0-9]{40}", "Supabase"),
    token(
        "groq_key", "LLM_KEY", r"(?:gsk_|xai-|pplx-|r8_|nvapi-)[A-Za-z0-9_\-]{32,90}", "model hosts"
    ),
    token("bitbucket_token", "BITBUCKET_TOKEN", r"ATBB[A-Za-z0-9]{32}", "Bitbucket app passwords"),
    token("pulumi_token", "PULUMI_TOKEN", r"pul-[a-f0-9]{40}", "Pulumi access tokens"),
    token(
        "planetscale_token",
        "DATABASE_TOKEN",
        r"pscale_(?:tkn|pw)_[A-Za-z0-9_\-]{32,64}",
        "PlanetScale",
    ),
    token("huawei_key", "HUAWEI_KEY", r"HPUA[A-Z0-9]{16}", "Huawei Cloud access keys"),
    token("baidu_key", "BAIDU_KEY", r"bce-v3/ALTAK-[A-Za-z0-9]{21}/[a-f0-9]{40}", "Baidu AI Cloud"),
    token("volcengine_key", "VOLCENGINE_KEY", r"AKLT[A-Za-z0-9]{40,50}", "Volcengine access keys"),
    _assigned(
        "cloud_secret_by_name",
        "CLOUD_SECRET",
        r"aws_secret_access_key|secretaccesskey|access_?key_?secret|secret_?key|secretkey|sk",
        r"[A-Za-z0-9/+=]{28,64}",
        "secret halves of AWS, Alibaba, Tencent, Huawei and Qiniu keys, by their name",
    ),
    _assigned(
        "kubeconfig_data",
        "KUBECONFIG",
        r"client-key-data|client-certificate-data|certificate-authority-data|id-token",
        r"[A-Za-z0-9+/=._\-]{40,500}",
        "Kubernetes client configuration v1",
    ),
    Recognizer(
        name="docker_auth",
        type="SECRET",
        subtype="DOCKER_TOKEN",
        pattern=r"\"auth\" {0,2}: {0,2}\"(?P<v>[A-Za-z0-9+/]{8,400}={0,2})\"",
        source="Docker config.json, credentials in Base64",
        score=(0.95, 0.95),
        veto=False,
    ),
    Recognizer(
        name="netrc_password",
        type="SECRET",
        subtype="PASSWORD",
        pattern=r"(?<![a-z])machine [a-z0-9.\-]{3,60}\s{1,4}login \S{1,64}\s{1,4}password "
        r"(?P<v>\S{4,100})",
        source="the .netrc file of ftp(1)",
        score=(0.97, 0.97),
        case=False,
        veto=False,
    ),
    Recognizer(
        name="connection_password",
        type="SECRET",
        subtype="CONNECTION_STRING",
        pattern=r"(?<![a-z])(?:server|data source|host|database|initial catalog|user id|uid|user)"
        r" ?= ?[^;\n]{1,80};[^\n]{0,160}?(?:password|pwd) ?= ?(?P<v>[^;\s\"']{4,100})",
        hint=r"(?:password|pwd) ?=",
        source="ADO.NET and ODBC connection strings: the password part",
        score=(0.97, 0.97),
        check=checks.not_a_placeholder,
        case=False,
        veto=False,
    ),
    Recognizer(
        name="curl_basic",
        type="SECRET",
        subtype="PASSWORD",
        pattern=r"(?<![A-Za-z])curl [^\n]{0,200}?(?:-u|--user)[ =]['\"]?[^\s:'\"]{1,64}:"
        r"(?P<v>[^\s'\"]{3,100})",
        hint=r"curl ",
        source="curl(1), -u user:password",
        score=(0.95, 0.95),
        check=checks.not_a_placeholder,
        veto=False,
    ),
    Recognizer(
        name="key_file_body",
        type="SECRET",
        subtype="PRIVATE_KEY",
        pattern=r"(?<![A-Za-z0-9+/])(?:b3BlbnNzaC1rZXktdjEA|MII[EJCB][A-Za-z0-9+/]I[A-Z]AA)"
        r"[A-Za-z0-9+/=]{20,200}",
        source="openssh-key-v1 and PKCS#1/#8 bodies in Base64 without their BEGIN line",
        score=(0.95, 0.95),
        veto=False,
    ),
)

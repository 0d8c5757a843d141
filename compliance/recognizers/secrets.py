"""Keys, tokens and passwords. Issuers' prefixes are unmistakable; the rest needs a label. PURE."""

from __future__ import annotations

from compliance.recognizers import checks, checks_world
from compliance.recognizers.base import NOT_AFTER, NOT_BEFORE, Recognizer


def token(name: str, subtype: str, pattern: str, source: str, *, case: bool = True) -> Recognizer:
    """A token that its issuer's prefix gives away."""
    return Recognizer(
        name=name,
        type="SECRET",
        subtype=subtype,
        pattern=f"(?<![A-Za-z0-9_]){pattern}(?![A-Za-z0-9_])",
        source=source,
        score=(0.98, 0.99),
        case=case,
        veto=False,
    )


_TOKENS = (
    token(
        "aws_access_key",
        "AWS_ACCESS_KEY",
        r"(?:AKIA|ASIA|AROA|AIDA|ABIA|ACCA)[A-Z2-7]{16}",
        "AWS IAM identifiers",
    ),
    token(
        "github_token",
        "GITHUB_TOKEN",
        r"gh[pousr]_[A-Za-z0-9]{36,255}",
        "GitHub token formats, 2021",
    ),
    token(
        "github_pat",
        "GITHUB_TOKEN",
        r"github_pat_[A-Za-z0-9_]{22,255}",
        "GitHub fine-grained tokens",
    ),
    token(
        "gitlab_token",
        "GITLAB_TOKEN",
        r"gl(?:pat|dt|rt|cbt|ptt|ft|soat)-[A-Za-z0-9_\-]{20,64}",
        "GitLab token prefixes",
    ),
    token("slack_token", "SLACK_TOKEN", r"xox[abeoprs]-[A-Za-z0-9\-]{10,250}", "Slack token types"),
    token(
        "slack_app_token",
        "SLACK_TOKEN",
        r"xapp-[0-9]-[A-Z0-9]{6,20}-[0-9]{6,20}-[a-f0-9]{32,80}",
        "Slack app tokens",
    ),
    token(
        "slack_webhook",
        "SLACK_WEBHOOK",
        r"https://hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9/]{20,90}",
        "Slack webhooks",
    ),
    token("anthropic_key", "ANTHROPIC_KEY", r"sk-ant-[A-Za-z0-9_\-]{20,200}", "Anthropic API keys"),
    token(
        "openai_key",
        "OPENAI_KEY",
        r"sk-(?:proj-|svcacct-|admin-|or-v1-)?[A-Za-z0-9_\-]{20,220}",
        "OpenAI-style API keys",
    ),
    token("google_api_key", "GOOGLE_API_KEY", r"AIza[0-9A-Za-z_\-]{35}", "Google Cloud API keys"),
    token(
        "google_oauth",
        "GOOGLE_OAUTH",
        r"(?:GOCSPX-[A-Za-z0-9_\-]{28}|ya29\.[A-Za-z0-9_\-]{20,300})",
        "Google OAuth",
    ),
    token(
        "stripe_key",
        "STRIPE_KEY",
        r"(?:sk|rk|pk|whsec)_(?:(?:live|test)_)?[A-Za-z0-9]{16,200}",
        "Stripe API keys",
    ),
    token("twilio_key", "TWILIO_KEY", r"(?:AC|SK)[0-9a-f]{32}", "Twilio SIDs"),
    token(
        "sendgrid_key",
        "SENDGRID_KEY",
        r"SG\.[A-Za-z0-9_\-]{16,32}\.[A-Za-z0-9_\-]{16,64}",
        "SendGrid API keys",
    ),
    token("npm_token", "NPM_TOKEN", r"npm_[A-Za-z0-9]{36}", "npm access tokens"),
    token("pypi_token", "PYPI_TOKEN", r"pypi-AgE[A-Za-z0-9_\-]{40,300}", "PyPI macaroon tokens"),
    token(
        "huggingface_token",
        "HUGGINGFACE_TOKEN",
        r"hf_[A-Za-z0-9]{30,60}",
        "Hugging Face user tokens",
    ),
    token(
        "vault_token",
        "VAULT_TOKEN",
        r"(?:hvs|hvb|hvr)\.[A-Za-z0-9_\-]{20,200}",
        "HashiCorp Vault and OpenBao tokens",
    ),
    token(
        "telegram_token",
        "TELEGRAM_TOKEN",
        r"[0-9]{8,10}:AA[A-Za-z0-9_\-]{33}",
        "Telegram bot tokens",
    ),
    token("aliyun_key", "ALIYUN_KEY", r"LTAI[A-Za-z0-9]{12,24}", "Alibaba Cloud access keys"),
    token("tencent_key", "TENCENT_KEY", r"AKID[A-Za-z0-9]{28,36}", "Tencent Cloud secret ids"),
    token(
        "shopify_token",
        "SHOPIFY_TOKEN",
        r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}",
        "Shopify access tokens",
    ),
    token(
        "digitalocean_token",
        "DIGITALOCEAN_TOKEN",
        r"do[opr]_v1_[a-f0-9]{64}",
        "DigitalOcean tokens",
    ),
    token(
        "azure_key",
        "AZURE_KEY",
        r"AccountKey=[A-Za-z0-9+/]{60,100}={0,2}",
        "Azure storage connection strings",
    ),
    token(
        "jwt",
        "JWT",
        r"eyJ[A-Za-z0-9_\-]{8,400}\.eyJ[A-Za-z0-9_\-]{4,400}(?:\.[A-Za-z0-9_\-]{4,400})?",
        "RFC 7519",
    ),
    token(
        "age_key",
        "PRIVATE_KEY",
        r"AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}",
        "age, Bech32 keys",
    ),
)

_LABEL = (
    r"(?:pass(?:word|wd|phrase|code)?|pwd|pw|secret(?:[_\- ]?(?:access)?[_\- ]?key)?|api[_\- ]?"
    r"(?:key|secret|token)"
    r"|access[_\- ]?(?:key|token)|auth[_\- ]?token|client[_\- ]?secret|private[_\- ]?key"
    r"|encryption[_\- ]?key"
    r"|secret[_\- ]?access[_\- ]?key|token|credentials?|bearer)"
)

SECRETS = (
    *_TOKENS,
    Recognizer(
        name="connection_string",
        type="SECRET",
        subtype="CONNECTION_STRING",
        pattern=r"(?<![a-z0-9])[a-z][a-z0-9+.\-]{1,20}://[^\s:/@'\"]{0,64}:(?P<v>"
        r"[^\s/@'\"]{1,100})@[a-z0-9\[]",
        source="RFC 3986, 3.2.1: a password in the userinfo part",
        score=(0.97, 0.99),
        case=False,
        veto=False,
    ),
    Recognizer(
        name="secret_assignment",
        type="SECRET",
        subtype="PASSWORD",
        pattern=rf"(?<![a-z]){_LABEL}(?![a-z])['\"]?\]? {{0,3}}(?::=|=>|[:=])[ ]{{0,3}}(?:bearer )?"
        r"(?:['\"](?P<q>[^'\"\n]{4,120})['\"]|(?P<v>[^\s'\",;(){}\[\]<>，。；]{4,120}))",
        source="assignments in code, configuration and logs",
        score=(0.92, 0.92),
        check=checks.not_a_placeholder,
        case=False,
        veto=False,
    ),
    Recognizer(
        name="secret_in_variable",
        type="SECRET",
        subtype="PASSWORD",
        pattern=r"(?<![a-z0-9])[a-z][a-z0-9]{0,20}[_\-](?:[a-z0-9]{1,20}[_\-]){0,3}(?:password"
        r"|passwd|pwd|secret|token|key)"
        r"['\"]? {0,2}[:=] {0,2}['\"]?(?P<v>[A-Za-z0-9+/=_.\-]{12,120})",
        source="environment variables such as DB_PASSWORD=…",
        score=(0.9, 0.92),
        check=checks.random_looking,
        case=False,
        veto=False,
    ),
    Recognizer(
        name="password_in_prose",
        type="SECRET",
        subtype="PASSWORD",
        pattern=r"(?<![a-z])(?:(?:password|passwd|passcode|pass phrase|passphrase|pwd|pw"
        r"|pin(?: code)?)(?: for [a-z0-9 .@\-]{1,30}?)? (?:is|was|=|to)(?: set to)?:?"
        r"|pw:?(?= {1,2}[a-z]{2,20}[0-9!@#$%^&*])) {1,2}['\"“]?"
        r"(?P<v>(?=[^\s'\"”]{0,30}(?:[0-9!@#$%^&*]|(?-i:[a-z][A-Z])))[^\s'\"”，。；]{4,64}?)"
        r"(?=['\"”，。；]|[.,;:?]?(?:\s"
        r"|$))",
        source="how people tell a password: the password is …",
        score=(0.9, 0.92),
        case=False,
        veto=False,
    ),
    Recognizer(
        name="cn_password",
        type="SECRET",
        subtype="PASSWORD",
        pattern=r"(?:密码|口令|密钥|令牌|秘钥|验证码)"
        r"(?:是|为|：|:|=|改成|设为|设置为| ){1,3}['\"“]?"
        r"(?P<v>[A-Za-z0-9!@#$%^&*_+=./\-]{4,120})",
        source="how people tell a password in Chinese: 密码是…",
        score=(0.9, 0.92),
        case=False,
        veto=False,
    ),
    Recognizer(
        name="bearer_token",
        type="SECRET",
        subtype="BEARER_TOKEN",
        pattern=r"(?<![a-z])(?:bearer|basic|token) {1,2}(?P<v>[A-Za-z0-9+/_.=\-]{16,500})",
        source="RFC 6750, 2.1 and RFC 7617",
        score=(0.92, 0.95),
        check=checks.random_looking,
        case=False,
        veto=False,
    ),
    Recognizer(
        name="labelled_random",
        type="SECRET",
        subtype="HIGH_ENTROPY",
        pattern=rf"(?<![A-Za-z0-9+/=_\-])[A-Za-z0-9+/_\-]{{32,200}}={{0,2}}{NOT_AFTER}",
        source="Shannon entropy, by a word such as secret or key near by",
        score=(0.0, 0.9),
        check=checks.mixed_case_random,
        context=("secret", "key", "token", "password", "credential", "api", "密钥", "令牌", "密码"),
    ),
    Recognizer(
        name="private_key_line",
        type="SECRET",
        subtype="PRIVATE_KEY",
        pattern=r"PuTTY-User-Key-File-[0-9]: [a-z0-9\-]{4,40}",
        source="PuTTY private key files",
        score=(0.97, 0.97),
        veto=False,
    ),
    Recognizer(
        name="crypto_wallet",
        type="BANK_ACCOUNT",
        subtype="CRYPTO_WALLET",
        pattern=rf"{NOT_BEFORE}(?:0x[a-fA-F0-9]{{40}}|bc1[ac-hj-np-z02-9]{{25,62}}|[13]"
        rf"[1-9A-HJ-NP-Za-km-z]{{26,33}}){NOT_AFTER}",
        source="Bitcoin BIP 173 and Base58 addresses, Ethereum EIP-55",
        score=(0.9, 0.95),
        check=checks_world.crypto_address,
        context=("wallet", "bitcoin", "btc", "eth", "ethereum", "crypto", "钱包"),
    ),
)

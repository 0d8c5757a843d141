"""Chinese: what is found in texts of many kinds, what is left alone, and the check digits."""

import json
from pathlib import Path

import pytest

from compliance.engine import Engine
from compliance.evaluate import HARD_NEGATIVE, Evaluation
from compliance.policy import Action
from compliance.recognizers import ALL, checks, checks_world
from compliance.scanner import findings_of
from meshkit.contract import Direction

BY_NAME = {recognizer.name: recognizer for recognizer in ALL}
TEXTS = Path(__file__).with_name("data") / "zh_texts.jsonl"
F2_MIN, F2_OF_A_TYPE_MIN, ALARMS_MAX = 0.95, 0.9, 0.03
MASKED_FROM = 0.5
"""The default policy's threshold for most types."""
NAMES = frozenset({"PERSON", "ORG"})
"""Found by models, which are not asked here."""


@pytest.fixture(scope="module")
def records():
    return [json.loads(line) for line in TEXTS.read_text("utf-8").splitlines()]


def masked(policy, one):
    decision = policy.decide(one.type, one.subtype, Direction.PROMPT)
    return decision.action not in {Action.ALLOW, Action.FLAG}


async def measured(scanner, records):
    evaluation = Evaluation()
    for record in records:
        windows = scanner.windows(record["text"])
        found = findings_of(windows, await scanner.scan(windows, Direction.PROMPT))
        found = [one for one in found if one.type not in NAMES and masked(scanner.policy, one)]
        evaluation.add(record, found)
    return evaluation.summary()


async def test_structured_chinese_is_found(scanner, records):
    texts = [record for record in records if HARD_NEGATIVE not in record["tags"]]
    summary = await measured(scanner, texts)

    assert len(texts) >= 80
    assert summary["overall"]["f2"] >= F2_MIN
    of_types = {kind: row["f2"] for kind, row in summary["by"]["type"].items() if row["gold"] >= 3}
    assert {kind: f2 for kind, f2 in of_types.items() if f2 < F2_OF_A_TYPE_MIN} == {}


async def test_chinese_without_personal_data_raises_few_alarms(scanner, records):
    quiet = [record for record in records if HARD_NEGATIVE in record["tags"]]
    summary = await measured(scanner, quiet)

    assert len(quiet) >= 60
    alarms = summary["hard_negatives"]["zh"]
    assert alarms["flagged"] <= ALARMS_MAX * len(quiet), summary["alarm_types"]


def found(name, text):
    """What the recognizer alone finds that a policy would mask."""
    hits = Engine([BY_NAME[name]]).find(text, 0)
    return {text[hit.start : hit.end] for hit in hits if hit.score >= MASKED_FROM}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("cn_resident_id", "港澳居民居住证810000198408121234", "810000198408121234"),
        ("cn_resident_id_old", "老身份证号320102650312123", "320102650312123"),
        ("cn_bank_card", "银行卡6222021234567890128", "6222021234567890128"),
        ("cn_service_number", "客服热线400-820-8820", "400-820-8820"),
        ("cn_landline", "座机（0755）26891234", "（0755）26891234"),
        ("cn_passport", "护照EA1234567", "EA1234567"),
        ("cn_travel_permit", "往来港澳通行证CA1234567", "CA1234567"),
        ("cn_passport_label", "臺胞證：0123456789", "0123456789"),
        ("cn_plate", "新能源车浙AD12345", "浙AD12345"),
        ("cn_plate", "沪A1234领", "沪A1234领"),
        ("cn_plate", "粤Z1234港", "粤Z1234港"),
        ("cn_plate", "京A1234警", "京A1234警"),
        ("cn_embassy_plate", "使馆的车，使123456", "使123456"),
        ("cn_officer_id", "士兵证士字第20190876号", "士字第20190876号"),
        ("cn_certificate", "个人编号：320100998877", "320100998877"),
        ("cn_account_by_label", "住房公积金账号320100998877", "320100998877"),
        ("cn_birth_label", "生日：农历八月十五", "八月十五"),
        ("cn_birth_label", "出生日期：民國75年3月12日", "民國75年3月12日"),
        ("cn_birth_label", "出生年月1983年9月", "1983年9月"),
        ("cn_then_birth", "一九六五年十二月一日出生", "一九六五年十二月一日"),
        ("cn_one_time_code", "【某银行】662013（动态验证码）", "662013"),
        ("cn_password_stuck", "密码Admin@123", "Admin@123"),
        ("cn_messenger", "QQ：843920175", "843920175"),
        ("hk_mo_phone", "請致電+852-2345-6789", "+852-2345-6789"),
        ("tw_mobile", "手機+886 912 345 678", "+886 912 345 678"),
        ("mo_id", "澳门居民身份证5/123456/7", "5/123456/7"),
        ("hk_tw_plate", "車牌AB 1234", "AB 1234"),
    ],
)
def test_found_in_its_forms(name, text, value):
    assert found(name, text) == {value}


@pytest.mark.parametrize(
    ("before", "value", "after"),
    [
        ("收货地址", "浙江省义乌市稠城街道篁园路103号2单元501室", "，电话另发"),
        ("寄到", "臺北市信義區信義路五段7號89樓之2", ""),
        ("地址：", "九龍旺角彌敦道688號旺角中心12樓A室", "。"),
        ("家住", "江苏省苏州市盛泽镇红洲村12组35号", "，务农"),
        ("老家", "贵州省遵义市播州区三合镇刀靶村新华组18号", ""),
        ("户籍所在地", "安徽省阜阳市颍上县慎城镇解放北路15号", "，"),
        ("现居", "杭州市滨江区江南大道3888号", ""),
        ("业主，", "北京市丰台区方庄路9号院芳城园2区6号楼1203", "，"),
        ("我住", "天河区体育西路103号维多利广场B塔2206", "，"),
    ],
)
def test_an_address_is_found_from_its_first_character_to_its_last(before, value, after):
    assert found("cn_address", before + value + after) == {value}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cn_certificate", "注册12345个用户，工号墙上见"),
        ("cn_certificate", "学号：20231105"),
        ("cn_medical_label", "检查12345个文件"),
        ("cn_one_time_code", "验证码2024年改版，验证码60秒内有效"),
        ("cn_one_time_code", "验证码6000个已发出"),
        ("cn_password_stuck", "密码8-16位，密码长度不少于8位"),
        ("cn_password_stuck", "密码错误，忘记密码怎么办"),
        ("cn_embassy_plate", "停车场里的天使123456"),
        ("cn_birth_label", "诞生于1921年7月"),
        ("cn_then_birth", "正月十五生意好，2019年9月1日生效"),
        ("cn_then_birth", "2023年5月出生人口下降"),
        ("cn_messenger", "微信号码可以改一次，QQ9.9.3发布"),
        ("cn_wechat_stuck", "微信android8023版，微信群500人"),
        ("cn_account_by_label", "账户余额12345元"),
        ("hk_mo_phone", "手機20231105上市"),
        ("cn_address", "这条街有300号人"),
        ("cn_address", "地铁线路10号线在国贸换乘"),
        ("cn_address", "安检通道3号门"),
        ("tw_landline", "版本02-1234-5678"),
        ("vin", "批次LSVAB4188E2123458"),
    ],
)
def test_left_alone(name, text):
    assert found(name, text) == set()


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (checks_world.hk_id, "A123456(3)"),
        (checks_world.hk_id, "AB987654(3)"),
        (checks_world.hk_id, "G123456(A)"),
        (checks_world.tw_id, "A123456789"),
        (checks_world.tw_id, "A800000014"),
        (checks_world.tw_business, "04595257"),
        (checks_world.vin, "1M8GDM9AXKP042788"),
        (checks_world.vin, "11111111111111111"),
        (checks.cn_resident_18, "11010519491231002X"),
        (checks.cn_resident_18, "810000198408121234"),
        (checks.cn_resident_15, "110105491231002"),
        (checks.uscc, "91350100M000100Y43"),
    ],
)
def test_a_check_digit_is_right_and_its_neighbours_are_wrong(check, value):
    # The last digit is the check digit, but for a car's, which is the ninth of seventeen.
    place = 8 if check is checks_world.vin else max(i for i, c in enumerate(value) if c.isalnum())
    others = [d for d in "0123456789" if d != value[place]]
    taken = [d for d in others if check(f"{value[:place]}{d}{value[place + 1 :]}")]

    assert check(value)
    if check is checks.cn_resident_15:
        assert taken == others, "this form has no check digit"
    elif check is checks_world.tw_business:
        assert len(taken) <= 1, "modulo 5: each check digit has a twin"
    else:
        assert taken == []


def test_a_seven_in_a_taiwan_firm_counts_twice():
    # Its products sum to 34: neither that nor, but for the seven, 35 would do.
    assert checks_world.tw_business("12345073")
    assert not checks_world.tw_business("12345072")


def test_a_label_vouches_for_a_card_whose_check_digit_is_wrong():
    text = "香港身份證A123456(4)"

    assert found("hk_id", text) == {"A123456(4)"}
    assert found("hk_id", "A123456(4)") == set()
    assert found("tw_id", "A123456788") == set()


async def people(scanner, text):
    windows = scanner.windows(text)
    found = findings_of(windows, await scanner.scan(windows, Direction.PROMPT))
    return [text[one.start : one.end] for one in found if one.type == "PERSON"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("请汇至：户名马超，账号另告", ["马超"]),
        ("帳號另告，戶名陳美玲", ["陳美玲"]),
        ("被上诉人雷鸣，现住昆明", ["雷鸣"]),
        ("病患黃淑芬，身分證另附", ["黃淑芬"]),
        ("王先生和李医生都来了", ["王先生", "李医生"]),
        ("联系人方式，户名单位。", []),
        ("陈年往事，他马上就很高兴，张开双臂。", []),
        ("白天太热，黄昏凉快，黄金周再去，万一下雨呢", []),
        ("李子熟了，江水滔滔，方便的时候走马路。", []),
    ],
)
async def test_names_in_chinese_and_words_that_look_like_them(naming_scanner, text, names):
    assert await people(naming_scanner, text) == names

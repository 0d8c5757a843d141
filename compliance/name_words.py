"""Word lists that keep name models from being asked, or believed, in vain. PURE."""

from __future__ import annotations

__all__ = ["COMMON_WORDS", "NOT_PEOPLE_ZH", "SURNAMES_ZH"]

_COMMON = """
a about above accept account action actually add additional address after again all almost along
already also although always am amex an and android angular another answer any anyone anything
api application are around article as ask at attn august authentication authorization available
aws back bank based bash basic bcc be bearer because been before being below best better between
bic both business but buy by call can cannot card case cc change check choose city class click
client close code come company consider contact content content-type continue could country cpu
create css csv currently customer data date day days dear debug december def delete describe
despite details developer did difference different django dns do dob docker document does doing
don done down draft drop dss due during each early easy either else email employee end english
enter error especially even ever every everyone everything example excel exception explain
explanation extremely false faq fatal fax february feel few file fill finally find first five
flask follow following for four france friday from full function further fw fwd gdpr general
generate get git github gitlab give given go golang good gpu great group had hadoop has have he
hello help hence her here hers hey hi high him hipaa his history hope hospital host how however
html http https i iban id ide if import important in include including indeed info information
input insert inside instead into introduction invoice ios ip is iso issue it item its january
java javascript job jpeg json july june just jwt kafka keep key know kubernetes large last later
latest least let like line linux list llm log login long look looking lua make many march
mastercard may maybe me mean meanwhile medical meet meeting message mobile model monday month
monthly more moreover most mr mrn mrs ms much must my mysql name need never new next nginx nhs
nice no nodejs none nor not note notes nothing november now number numpy oauth october of off
often ok okay old on once one only open openssl optional or order other others our out output
over overall own page pandas part passport password patient payment pci pdf people per perhaps
person phone php place plan please png point policy possible post postgres postgresql powerpoint
price private problem process product project provide ps public put python question quick re
react read ready really reason recently record redis regarding remember reminder reply report
request required research reset rest result results return review right ruby run rust said same
saturday save say school sdk second secret security see select send sent september server
service set several she should show similarly simple simply since sir six so some someone
something sometimes soon sorry source spark sql ssh ssl ssn start state status step steps still
stop street subject such summarise summarize summary sunday support sure svg swift system table
take talk tcp team tel tell ten test text than thank thanks that the their them then there
therefore these they thing things think third this those though three through thursday thus time
title tls to today todo together token tomorrow too total trace traceback translate true try
tuesday two type typescript udp ui under unfortunately unix until up update upon uri url us usb
use used user users using usually utf uuid ux value verify version very view visa visit vpn vue
want warn warning was way we website wednesday week welcome well were what whatever when where
whereas whether which while who whom whose why will windows with within without word work would
write xml yaml year years yes yesterday yet you your yours
"""

COMMON_WORDS = frozenset(_COMMON.split())
"""Lower-case words that name nobody although a sentence or a label may begin with them."""

SURNAMES_ZH = (
    "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎余潘杜戴夏钟汪田任姜"
    "范方石姚谭廖邹熊金陆郝孔白崔康毛邱秦江史顾侯邵孟龙万段雷钱汤尹黎易常武乔贺赖龚文庞樊兰殷施陶洪翟安颜倪严牛温芦季俞章鲁葛伍韦"
    "申尤毕聂丛焦向柳邢路岳齐沿梅莫庄辛管祝左涂谷祁时舒耿牟卜詹关苗凌费纪靳盛童欧甄项曲成游阳裴席卫查屈鲍位覃霍翁隋植甘景薄单包"
    "司柏宁柯阮桂闵解强柴华车冉房边欧诸葛上官司马"
)
"""Characters that Chinese family names begin with; the 200 commonest cover 96 % of people."""

NOT_PEOPLE_ZH = frozenset(
    ["先生", "女士", "小姐", "老师", "客户", "用户", "患者", "医生", "同学", "经理", "主任"]
)
"""Titles that the model at times takes for a name."""

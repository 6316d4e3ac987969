"""Frequent English words, for synthetic speech: some hundreds beside those of the recordings' own texts."""

TEXT = """
a about above across act add after again against age ago air all almost alone along already also always am among an
and animal another answer any appear are area arm around art as ask at away baby back bad ball bank base be
beautiful because become bed been before began behind being believe below best better between big bird black blue
board boat body book both bottom box boy bread break bring brother brown build burn business but buy by call came
can car care carry case cat catch cause centre certain change check child children church circle city class clean
clear close clothes cloud coat coffee cold colour come common cook corner correct cost could count country course
cover cow cream cross cry cup cut dark day dead deep did differ dinner direct do doctor does dog door down draw
dream dress drink drive dry during each ear early earth east easy eat edge egg end enough even evening ever every
eye face fact fall family far farm fast father feel feet few field fight fill final find fine finger fire first fish
floor flower fly follow food foot for force form found free fresh friend from front fruit full game garden gave get
girl give glass go gold good got grass great green grew ground group grow had hair half hand happy hard has hat have
he head hear heard heart heavy help her here high hill him his hold home horse hot hour house how hundred ice idea
if in inside is island it job jump just keep kind king kitchen knew know lady lake land language large last late
laugh lead learn leave left leg less let letter life light like line list listen little live long look lost loud
love low machine made make man many map mark market may me mean measure meat meet men milk mind minute money month
moon more morning most mother mountain mouth move much music must my name near neck need never new next night no
noise north nose not note nothing now number of off often oil old on once only open or orange order other our out
over own page paint paper part party pass past people perhaps person phone picture piece place plan plant play
please point poor power present pretty public pull put question quick quiet rain ran read ready real red rest rich
ride right ring river road rock room round rule run said salt same sat saw say school sea second see seem send sent
serve set several shape she ship shirt shoe shop short should show side silver simple sing sister sit size skin sky
sleep slow small snow so soft some son song soon sound south speak special spring stand star start state station
stay step still stone stop store story street strong study such sugar summer sun sure table take talk tall tea teach
tell test than thank that the their them then there these they thing think this those thought thousand through time
to today together told tomorrow took top town train travel tree true try turn under until up us use very voice wait
walk wall want war warm was wash watch water way we week well went were west what wheel when where which while white
who whole why wide wife will wind window winter with woman wonder wood word work world would write year yes
yesterday yet you young your
"""
COMMON_WORDS = TEXT.split()

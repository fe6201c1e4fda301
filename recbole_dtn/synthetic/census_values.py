"""Columns of Census-Income (KDD) and how often each value is there.

Names, order and values are those of the UCI archive's Census-Income (KDD) data, an extract of the US Current Population
Surveys of 1994 and 1995; the numbers are rows per 100,000 of its test part, at least 1. Values keep their odd spaces.
"""

from __future__ import annotations

__all__ = ["COLUMNS", "NUMBERS", "shares"]

COLUMNS = (
    "age",
    "class_worker",
    "det_ind_code",
    "det_occ_code",
    "education",
    "wage_per_hour",
    "hs_college",
    "marital_stat",
    "major_ind_code",
    "major_occ_code",
    "race",
    "hisp_origin",
    "sex",
    "union_member",
    "unemp_reason",
    "full_or_part_emp",
    "capital_gains",
    "capital_losses",
    "stock_dividends",
    "tax_filer_stat",
    "region_prev_res",
    "state_prev_res",
    "det_hh_fam_stat",
    "det_hh_summ",
    "instance_weight",
    "mig_chg_msa",
    "mig_chg_reg",
    "mig_move_reg",
    "mig_same",
    "mig_prev_sunbelt",
    "num_emp",
    "fam_under_18",
    "country_father",
    "country_mother",
    "country_self",
    "citizenship",
    "own_or_self",
    "vet_question",
    "vet_benefits",
    "weeks_worked",
    "year",
    "income_50k",
)
NUMBERS = ("age", "wage_per_hour", "capital_gains", "capital_losses", "stock_dividends", "instance_weight")
"""Columns that are drawn as numbers; every other one but the label has its shares below."""

SHARES = {
    "class_worker": (
        "Not in universe=50198|Private=36157|Self-employed-not incorporated=4290|Local government=3842|"
        "State government=2172|Self-employed-incorporated=1652|Federal government=1408|Never worked=204|"
        "Without pay=75"
    ),
    "det_ind_code": (
        "0=50403|33=8733|43=4237|4=3074|42=2309|29=2216|45=2209|37=2144|41=1855|32=1826|35=1669|39=1459|34=1357|"
        "44=1225|2=1080|11=905|38=848|40=823|50=823|47=806|24=733|19=723|12=682|30=596|31=571|36=496|9=491|"
        "25=484|22=470|13=468|1=382|3=326|27=296|48=292|21=282|23=275|5=270|49=263|8=254|16=254|7=248|6=243|"
        "15=223|18=207|14=142|46=102|17=69|28=63|26=57|20=20|51=16|10=1"
    ),
    "det_occ_code": (
        "0=50403|2=4366|26=3823|19=2778|29=2677|36=2098|34=2027|10=1810|16=1746|33=1712|12=1697|3=1660|23=1639|"
        "35=1628|38=1563|31=1379|32=1192|37=1096|8=1020|30=943|42=932|17=905|24=896|41=806|28=789|44=781|4=683|"
        "43=663|13=616|18=575|39=482|15=440|5=440|27=427|14=419|25=417|9=372|7=365|40=338|11=298|1=277|21=274|"
        "22=221|6=200|45=80|20=31|46=16"
    ),
    "education": (
        "High school graduate=24205|Children=23498|Some college but no degree=13987|"
        "Bachelors degree(BA AB BS)=9909|7th and 8th grade=4159|10th grade=3822|11th grade=3531|"
        "Masters degree(MA MS MEng MEd MSW MBA)=3314|9th grade=3112|Associates degree-occup /vocational=2696|"
        "Associates degree-academic program=2084|5th or 6th grade=1718|12th grade no diploma=1140|"
        "1st 2nd 3rd or 4th grade=908|Prof school degree (MD DDS DVM LLB JD)=878|Doctorate degree(PhD EdD)=621|"
        "Less than 1st grade=417"
    ),
    "hs_college": "Not in universe=93647|High school=3514|College or university=2839",
    "marital_stat": (
        "Never married=43246|Married-civilian spouse present=42193|Divorced=6465|Widowed=5338|Separated=1700|"
        "Married-spouse absent=718|Married-A F spouse present=340"
    ),
    "major_ind_code": (
        "Not in universe or children=50403|Retail trade=8733|Manufacturing-durable goods=4456|Education=4237|"
        "Manufacturing-nondurable goods=3402|Construction=3074|Finance insurance and real estate=3026|"
        "Business and repair services=2992|Medical except hospital=2309|Transportation=2216|"
        "Other professional services=2209|Public administration=2183|Hospital services=1855|Wholesale trade=1826|"
        "Agriculture=1461|Personal services except private HH=1459|Social services=1225|Entertainment=823|"
        "Communications=596|Utilities and sanitary services=571|Private household services=496|Mining=326|"
        "Forestry and fisheries=102|Armed Forces=16"
    ),
    "major_occ_code": (
        "Not in universe=50403|Adm support including clerical=7269|Professional specialty=6885|"
        "Executive admin and managerial=6303|Other service=6192|Sales=6035|"
        "Precision production craft & repair=5367|Machine operators assmblrs & inspctrs=3194|"
        "Handlers equip cleaners etc =2076|Transportation and material moving=2045|"
        "Farming forestry and fishing=1524|Technicians and related support=1476|Protective services=789|"
        "Private household services=427|Armed Forces=16"
    ),
    "race": "White=83812|Black=10148|Asian or Pacific Islander=2920|Other=1908|Amer Indian Aleut or Eskimo=1212",
    "hisp_origin": (
        "All other=86128|Mexican-American=4011|Mexican (Mexicano)=3704|Central or South American=1992|"
        "Puerto Rican=1586|Other Spanish=1246|Cuban=617|NA=406|Chicano=170|Do not know=140"
    ),
    "sex": "Female=51915|Male=48085",
    "union_member": "Not in universe=90498|No=8053|Yes=1448",
    "unemp_reason": (
        "Not in universe=96863|Other job loser=1111|Re-entrant=1026|Job loser - on layoff=509|Job leaver=287|"
        "New entrant=204"
    ),
    "full_or_part_emp": (
        "Children or Armed Forces=61837|Full-time schedules=20516|Not in labor force=13445|"
        "PT for non-econ reasons usually FT=1739|Unemployed full-time=1208|PT for econ reasons usually PT=584|"
        "Unemployed part- time=412|PT for econ reasons usually FT=259"
    ),
    "tax_filer_stat": (
        "Nonfiler=37457|Joint both under 65=33652|Single=18939|Joint both 65+=4204|Head of household=3766|"
        "Joint one under 65 & one 65+=1982"
    ),
    "region_prev_res": "Not in universe=92288|South=2431|West=2051|Midwest=1702|Northeast=1325|Abroad=203",
    "state_prev_res": (
        "Not in universe=92288|California=886|Utah=535|Florida=451|North Carolina=399|?=331|Indiana=298|"
        "Oklahoma=297|Minnesota=294|Abroad=266|New Mexico=229|North Dakota=227|Michigan=199|Arizona=137|"
        "Alaska=124|Louisiana=119|New Hampshire=116|Kentucky=114|Colorado=114|Georgia=111|Oregon=110|Alabama=108|"
        "Montana=107|New York=107|West Virginia=103|Wyoming=103|Nebraska=102|Arkansas=100|Ohio=100|"
        "Pennsylvania=99|Vermont=99|Tennessee=95|Texas=95|Illinois=85|Nevada=80|Maryland=79|Mississippi=78|"
        "South Dakota=75|Massachusetts=73|Missouri=70|Kansas=70|Maine=66|Iowa=65|Connecticut=65|Wisconsin=62|"
        "Virginia=58|District of Columbia=56|South Carolina=49|Delaware=48|New Jersey=38|Idaho=14"
    ),
    "det_hh_fam_stat": (
        "Householder=26755|Child <18 never marr not in subfamily=25050|Spouse of householder=20704|"
        "Nonfamily householder=11270|Child 18+ never marr Not in a subfamily=6149|Secondary individual=3164|"
        "Other Rel 18+ ever marr not in subfamily=1023|Grandchild <18 never marr child of subfamily RP=891|"
        "Other Rel 18+ never marr not in subfamily=836|Grandchild <18 never marr not in subfamily=503|"
        "Child 18+ ever marr Not in a subfamily=466|Other Rel 18+ spouse of subfamily RP=355|"
        "Child 18+ ever marr RP of subfamily=355|Child under 18 of RP of unrel subfamily=354|"
        "RP of unrelated subfamily=341|Other Rel 18+ ever marr RP of subfamily=311|"
        "Child 18+ never marr RP of subfamily=310|Other Rel <18 never marr not in subfamily=304|"
        "Other Rel <18 never marr child of subfamily RP=304|Grandchild 18+ never marr not in subfamily=207|"
        "In group quarters=83|Child 18+ spouse of subfamily RP=77|Other Rel 18+ never marr RP of subfamily=63|"
        "Child <18 never marr RP of subfamily=39|Spouse of RP of unrelated subfamily=24|"
        "Grandchild 18+ ever marr not in subfamily=20|Child <18 ever marr not in subfamily=15|"
        "Grandchild 18+ ever marr RP of subfamily=6|Child <18 ever marr RP of subfamily=6|"
        "Grandchild 18+ spouse of subfamily RP=4|Other Rel <18 ever marr RP of subfamily=3|"
        "Other Rel <18 never married RP of subfamily=2|Other Rel <18 spouse of subfamily RP=2|"
        "Other Rel <18 ever marr not in subfamily=2|Grandchild 18+ never marr RP of subfamily=1|"
        "Grandchild <18 never marr RP of subfamily=1|Child <18 spouse of subfamily RP=1"
    ),
    "det_hh_summ": (
        "Householder=38034|Child under 18 never married=25099|Spouse of householder=20706|Child 18 or older=7357|"
        "Other relative of householder=4842|Nonrelative of householder=3886|"
        "Group Quarters- Secondary individual=55|Child under 18 ever married=22"
    ),
    "mig_chg_msa": (
        "?=50065|Nonmover=41498|MSA to MSA=5302|NonMSA to nonMSA=1347|Not in universe=725|MSA to nonMSA=365|"
        "NonMSA to MSA=296|Not identifiable=200|Abroad to MSA=166|Abroad to nonMSA=36"
    ),
    "mig_chg_reg": (
        "?=50065|Nonmover=41498|Same county=4891|Different county same state=1332|Not in universe=725|"
        "Different region=584|Different state same division=475|Different division same region=227|Abroad=203"
    ),
    "mig_move_reg": (
        "?=50065|Nonmover=41498|Same county=4891|Different county same state=1332|Not in universe=725|"
        "Different state in South=476|Different state in West=359|Different state in Midwest=243|"
        "Different state in Northeast=208|Abroad=203"
    ),
    "mig_same": "Not in universe under 1 year old=50790|Yes=41498|No=7712",
    "mig_prev_sunbelt": "?=50065|Not in universe=42222|No=4822|Yes=2890",
    "num_emp": "0=48003|6=18372|1=11671|4=7076|3=6852|2=5092|5=2934",
    "fam_under_18": (
        "Not in universe=72567|Both parents present=19405|Mother only present=6272|Father only present=946|"
        "Neither parent present=810"
    ),
    "country_father": (
        "United-States=79557|Mexico=5060|?=3437|Puerto-Rico=1291|Italy=1122|Dominican-Republic=683|Canada=662|"
        "Germany=650|Poland=631|Philippines=592|Cuba=589|El-Salvador=503|China=397|England=382|Ireland=308|"
        "India=308|Columbia=291|South Korea=257|Jamaica=252|Guatemala=233|Vietnam=219|Japan=209|Greece=206|"
        "Portugal=197|Ecuador=194|Nicaragua=177|Hungary=168|Peru=158|Haiti=157|Yugoslavia=123|Scotland=119|"
        "Cambodia=117|Honduras=106|Iran=103|France=85|Taiwan=84|Laos=82|Outlying-U S (Guam USVI etc)=76|"
        "Trinadad&Tobago=69|Thailand=55|Hong Kong=51|Holand-Netherlands=21|Panama=16"
    ),
    "country_mother": (
        "United-States=80204|Mexico=4999|?=3079|Puerto-Rico=1196|Italy=919|Canada=704|Germany=678|"
        "Philippines=647|Cuba=597|Poland=586|Dominican-Republic=539|El-Salvador=535|England=428|China=369|"
        "Ireland=339|India=314|South Korea=298|Columbia=290|Japan=266|Jamaica=252|Vietnam=238|Guatemala=231|"
        "Ecuador=201|Nicaragua=185|Portugal=180|Hungary=171|Peru=167|Haiti=162|Greece=155|Scotland=115|"
        "Honduras=113|Taiwan=104|Yugoslavia=102|Cambodia=101|Iran=92|France=89|Laos=73|Thailand=71|"
        "Outlying-U S (Guam USVI etc)=63|Trinadad&Tobago=58|Hong Kong=49|Holand-Netherlands=20|Panama=18"
    ),
    "country_self": (
        "United-States=88564|Mexico=2943|?=1768|Puerto-Rico=694|Philippines=455|Cuba=429|Germany=421|Canada=347|"
        "El-Salvador=344|Dominican-Republic=328|China=238|South Korea=237|Italy=227|England=226|India=219|"
        "Columbia=212|Vietnam=182|Japan=178|Jamaica=176|Poland=171|Guatemala=168|Ecuador=134|Nicaragua=130|"
        "Peru=121|Haiti=99|Portugal=94|Taiwan=82|Honduras=78|Greece=74|Ireland=71|Iran=66|Thailand=65|"
        "Cambodia=63|France=59|Laos=54|Hong Kong=52|Trinadad&Tobago=48|Yugoslavia=48|"
        "Outlying-U S (Guam USVI etc)=46|Scotland=35|Hungary=30|Holand-Netherlands=11|Panama=11"
    ),
    "citizenship": (
        "Native- Born in the United States=88566|Foreign born- Not a citizen of U S =6722|"
        "Foreign born- U S citizen by naturalization=3019|Native- Born abroad of American Parent(s)=953|"
        "Native- Born in Puerto Rico or U S Outlying=740"
    ),
    "own_or_self": "0=90403|2=8254|1=1343",
    "vet_question": "Not in universe=98971|No=830|Yes=199",
    "vet_benefits": "2=75477|0=23494|1=1029",
    "weeks_worked": (
        "0=48003|52=35136|40=1365|26=1128|50=1113|48=1012|12=955|30=727|20=727|8=565|36=554|44=460|16=451|32=420|"
        "51=414|24=406|10=385|4=362|35=361|45=350|6=316|49=309|46=303|42=300|28=283|13=268|39=261|25=254|1=227|"
        "2=209|3=207|15=191|22=190|43=188|38=180|17=151|14=136|18=130|5=127|9=126|47=124|34=116|7=71|37=70|21=60|"
        "11=48|33=48|27=41|41=37|23=36|29=35|31=32|19=29"
    ),
    "year": "95=50065|94=49935",
}


def shares(column: str) -> dict[str, int]:
    """Rows per 100,000 of each value of a column.

    >>> shares("sex")
    {'Female': 51915, 'Male': 48085}
    """
    pairs = (pair.rpartition("=") for pair in SHARES[column].split("|"))
    return {value: int(count) for value, _, count in pairs}

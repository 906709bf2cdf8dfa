"""Lexicon: words that tell how much a request asks for, in English, German, French, Spanish and Chinese. Data, and its look-up.

A word that ends in `*` is a stem: whatever begins with it counts. Words are compared in lower case. Chinese has no spaces, so its
terms are searched in the text. A kind counts how many *different* words of it occur: repeating one makes a request no harder.
"""

import re
from collections.abc import Iterable, Mapping

HEAD_CHARS = 4
"""Stems are found by their first letters, so that a word costs one look-up whatever the number of stems."""

WORDS: Mapping[str, str] = {
    # Judging, arguing, weighing: the answer is not looked up but worked out.
    "reasoning": """
        why justif* analys* analyz* evaluat* assess* compar* contrast* implicat* reconcil*
        critique* hypothes* infer* deduc* argument* counterargument* consequence* tradeoff* trade-off* optimal*
        optimi* strateg* diagnos* prioriti* recommend* weigh* interpret* contradict* plausib* investigat*
        warum weshalb begründ* analysier* beurteil* bewert* vergleich* abwäg* folger*
        ursach* schlussfolger* auswirkung* widerspruch* strategie* empfehl*
        pourquoi justifi* analyse* évalu* conséquence* stratég* recommand*
        contradict* hypothèse* arbitrage*
        justifi* analiz* evalu* compara* consecuencia* estrateg* recomend* hipótesis argument*
    """,
    # Showing that something holds, without a gap.
    "proof": """
        prove prove* proof* disprov* derive* derivation* rigorous* counterexample* irrational* transcendental* refut*
        beweis* widerleg* herleit* gegenbeispiel* irrational* prouv* prouver démontr* preuve* irrationnel* contre-exemple*
        demuestr* demostr* contraejemplo* irracional*
    """,
    # Mathematics and statistics.
    "maths": """
        theorem* lemma* integral* integrat* derivativ* differentiabl*
        eigenvalue* eigenvector* matrix matrices determinant* polynomial*
        modulo prime primes probabilit* variance* covariance*
        bayes* stochastic* martingale* markov converge* diverge* asymptot*
        inequalit* bijection* injective* surjective* isomorph*
        topolog* manifold* combinator* permutation* recurrence* induction
        gradient* jacobian* hessian* fourier laplace lagrang*
        equation* inequality limit* regression* likelihood* estimator* unbiased
        ableitung* wahrscheinlichkeit* varianz* eigenwert* determinante* gleichung* ungleichung* konvergen* stetig*
        primzahl* vollständige* induktion erwartungswert* matrizen
        théorème* intégrale* dérivée* probabilité* matrice* déterminant*
        équation* inégalité* récurrence* nombre* premiers espérance
        teorema* derivada* probabilidad* matriz matrices determinante* ecuaci* desigualdad* inducción esperanza
    """,
    # Programming in general.
    "programming": """
        function* method* class classes bug bugs debug* compil*
        exception* stacktrace* traceback* regex* script* api apis endpoint* json
        sql query queries database* index* schema* docker* kubernetes
        git python javascript typescript java rust golang react django
        flask postgres* mysql redis unittest* pytest* code
        codebase* repository algorithm* array* hashmap* dictionary variable* loop*
        recursi* async await thread* lambda* decorator* generator* middleware* webhook* oauth* css html bash
        funktion* klasse* fehlermeldung* datenbank* abfrage* schnittstelle* skript* programmier* quelltext*
        fonction* classe* requête* bogue* erreur* script* programme* algorithme*
        función funciones clase* consulta* código* programa* algoritmo* excepci*
    """,
    # The parts of engineering where small mistakes are large.
    "engineering": """
        concurren* deadlock* race races mutex* atomic* distributed consensus raft paxos sharding shard* replicat*
        idempoten* linearizab* serializab* isolation eventual* consisten*
        throughput* latency bottleneck* scal* migrat* refactor*
        architect* invariant* backpressure* failover* leak leaks leaking segfault* garbage profil* vectoriz*
         invalidat* rollback* microservic* kernel compiler* amortized
        nebenläufig* verklemm* verteilt* skalier* architektur* migrier* refaktor* engpass* speicherleck*
        concurrent* verrou* réparti* distribué* architectur* goulot* migration* refactor* fuite*
        concurren* distribuid* arquitectur* escalab* cuello migración refactor* fuga
    """,
    # Fields where an answer has consequences and needs judgement.
    "expert": """
        liabilit* liable contract* clause* breach* indemnif* jurisdict*
        statut* gdpr tort* negligen* plaintiff* litigat* damages
        compliance fiduciar* warrant* arbitration patent* tax taxes
        taxable deduct* depreciat* amortiz* valuation* dcf hedg* portfolio*
        derivatives covenant* insolven* diagnosis differential symptom*
        dosage* contraindicat* prognos* comorbid* pharmac* renal cardiac
        clinical biopsy epidemiol* visa immigration
        haftung* vertrag* klausel* kündigungsschutz* gewährleistung*
        schadensersatz* dsgvo steuer* abschreib* verjähr* mietrecht*
        symptom* diagnose* dosier* wechselwirkung* befund*
        responsabilit* contrat* clause* préjudice* rgpd licenciement* impôt* fiscal* amortissement* bail symptôme* posologie*
        responsabilid* contrato* cláusula* despido* impuesto* fiscal* indemniz* herencia* síntoma* dosis diagnóst*
    """,
    # Complaints in which facts and policy have to be weighed.
    "dispute": """
        dispute* chargeback* fraud* unauthori* unauthoris* escalat*
        lawyer* attorney* compensat* overcharg* complaint* ombudsman*
        wrongly misled refused denied refusing reimburs* goodwill
        reklamier* beschwer* betrug* anwalt* erstatt* entschädig* verbraucherschutz* weiger* unberechtigt* widerspruch*
        litige* fraude* avocat* rembours* réclamation* dédommag* indemnis* refus* abusi*
        disputa* fraude* abogad* reembols* reclam* compens* indebid* negaron niegan
    """,
    # Making something of one's own.
    "building": """
        design* implement* build* develop* architect* plan* draft*
        propos* creat* write writing compos* construct* simulat* model*
        entwirf entwerf* entwickl* implementier* baue bauen plane planen erstell* schreib* konstruier* formulier*
        conç* concev* concevoir implément* développ* planif* rédig* écri* élabor* constru*
        diseñ* implement* desarroll* planific* redact* escrib* elabor* constru* crea
    """,
    # Long and thorough answers.
    "lengthy": """
        essay* report* detailed comprehensive thorough* chapter*
        whitepaper* proposal* roadmap* curriculum syllabus screenplay*
        specification* exhaustive* playbook*
        aufsatz* bericht* ausführlich* umfassend* detailliert* konzept* kapitel* gutachten*
        dissertation* rapport* détaillé* approfondi* exhaustif* chapitre* mémoire
        ensayo* informe* detallad* exhaustiv* completo capítulo* propuesta*
    """,
    # Conditions that an answer has to meet at once.
    "constraints": """
        must exactly unless except without constraint* requirement* subject
        provided assuming assume given neither nor each every only
        strictly simultaneous* minimum maximum
        muss müssen genau ohne außer sofern solange
        mindestens höchstens jeweils unter annahme bedingung* vorgabe* gleichzeitig
        doit doivent exactement sans sauf moins plus maximum minimum contrainte* condition* chaque sachant supposons
        debe deben exactamente sin salvo excepto mínimo máximo restricci* condici* cada suponiendo suponga
    """,
    # One step: look it up, say it, turn it into another form.
    "lookup": """
        hi hello hey thanks thank thx bye morning
        translate translation spell spelling synonym* antonym* define definition meaning
        capital opening hours password reset* unsubscribe track tracking
        order delivery shipping invoice logo phone address email
        login cancel* subscription weather joke* haiku name
        names list convert* celsius fahrenheit kilomet* currency capitalize
        lowercase uppercase abbreviation acronym holiday
        hallo danke guten tschüss übersetze übersetz* heißt
        bedeutet öffnungszeiten passwort* zurücksetz* kündig* lieferung bestellung
        sendung rechnung witz hauptstadt umrechn* wetter adresse
        bonjour salut merci tradui* signifie horaires mot passe
        livraison commande colis facture blague capitale annuler adresse
        hola gracias traduc* significa horario* contraseña envío pedido factura chiste capital cancelar dirección teléfono
    """,
}
"""Kinds of words; `farebox.routing.complexity.weights` says what each kind is worth."""

PHRASES: Mapping[str, tuple[str, ...]] = {
    "reasoning": (
        "trade-off", "root cause", "pros and cons",
        "how would you", "vor- und nachteile", "für und wider", "avantages et inconvénients",
        "causa raíz", "pros y contras",
    ),
    "proof": ("show that", "zeige, dass", "montrez que", "muestra que"),
    "engineering": ("lock-free", "zero downtime", "without downtime", "at scale", "exactly once", "fault-tolerant"),
    "lookup": (
        "what is the", "what's the", "how do i", "where can i", "do you have", "can i ", "what time", "how much is", "how many",
        "wie lautet", "was kostet", "wie viel", "quel est", "quelle est", "combien", "cuál es", "dónde", "cuánto",
    ),
    "lengthy": ("in detail", "in depth", "business plan", "full report"),
}  # fmt: skip
"""What says it only in several words; looked for at the beginning and the end of a text, where the task stands."""
PHRASES_WITHIN_CHARS = 300

CHINESE: Mapping[str, tuple[str, ...]] = {
    "reasoning": (
        "为什么", "分析", "评估", "比较", "权衡", "原因", "影响", "优缺点", "策略", "论证", "判断", "解释", "逐步", "建议",
    ),
    "proof": ("证明", "推导", "反例", "超越数", "无理数"),
    "maths": (
        "定理", "积分", "导数", "概率", "矩阵", "特征值", "方程",
        "不等式", "收敛", "期望", "方差", "归纳", "素数", "极限", "多项式",
    ),
    "programming": ("代码", "函数", "报错", "数据库", "接口", "编程", "脚本", "算法", "异常", "正则", "查询", "变量", "调试"),
    "engineering": (
        "并发", "死锁", "分布式", "一致性", "架构", "高可用", "迁移",
        "重构", "性能", "瓶颈", "内存泄漏", "分库分表", "幂等", "竞态",
    ),
    "expert": ("合同", "条款", "违约", "法律", "赔偿", "税", "诊断", "症状", "剂量", "劳动法", "责任", "合规", "投资"),
    "dispute": ("投诉", "纠纷", "退款", "欺诈", "盗刷", "拒绝", "律师", "争议", "补偿"),
    "building": ("设计", "实现", "开发", "撰写", "制定", "规划", "编写", "写一", "构建"),
    "lengthy": ("详细", "报告", "方案", "全面", "论文", "完整"),
    "constraints": ("必须", "不能", "不得", "至少", "至多", "恰好", "除非", "要求", "假设", "同时", "每个", "仅"),
    "lookup": (
        "你好", "谢谢", "翻译", "什么意思", "营业时间", "密码", "快递", "订单",
        "多少钱", "在哪", "首都", "怎么读", "几点", "天气", "电话", "发票",
        "取消",
    ),
} # fmt: skip

_SPACES = bytes(code if chr(code).isalnum() or code >= 0x80 else 0x20 for code in range(256))
"""ASCII punctuation becomes a space; bytes of other characters stay."""
_MARKS = re.compile("[¡¿«»“”„‘’…–—]")
_CJK = re.compile(r"[\u3400-\u9fff]")


def _index(words: Mapping[str, str]) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[tuple[str, str], ...]]]:
    exact: dict[str, tuple[str, ...]] = {}
    stems: dict[str, tuple[tuple[str, str], ...]] = {}
    for kind, text in words.items():
        for word in dict.fromkeys(text.split()):
            if not word.endswith("*"):
                exact[word] = (*exact.get(word, ()), kind)
                continue
            stem = word[:-1]
            head = stem[:HEAD_CHARS]
            # A stem shorter than the head is only found as the whole of a word as short as itself.
            if len(stem) < HEAD_CHARS:
                exact[stem] = (*exact.get(stem, ()), kind)
                continue
            stems[head] = (*stems.get(head, ()), (stem, kind))
    return exact, stems


_EXACT, _STEMS = _index(WORDS)


def kinds_of(words: Iterable[str]) -> dict[str, dict[str, None]]:
    """Words, in lower case and each once → by kind, those that belong to it, in order."""
    found: dict[str, dict[str, None]] = {}
    exact, stems = _EXACT.get, _STEMS.get
    for word in words:
        kinds = exact(word)
        if kinds is not None:
            for kind in kinds:
                found.setdefault(kind, {})[word] = None
        near = stems(word[:HEAD_CHARS])
        if near is not None:
            for stem, kind in near:
                if word.startswith(stem):
                    # Two forms of one word are one word.
                    found.setdefault(kind, {})[stem] = None
    return found


def words_of(lowered: str) -> dict[str, None]:
    """The different words of a text, in order."""
    if not lowered.isascii():
        lowered = _MARKS.sub(" ", lowered)
    return dict.fromkeys(lowered.encode("utf-8", "replace").translate(_SPACES).decode("utf-8", "replace").split())


def search(lowered: str) -> dict[str, tuple[str, ...]]:
    """A text in lower case → by kind, the different words and phrases of the lexicon in it."""
    found = kinds_of(words_of(lowered))
    near = lowered
    if len(lowered) > 2 * PHRASES_WITHIN_CHARS:
        near = f"{lowered[:PHRASES_WITHIN_CHARS]}\n{lowered[-PHRASES_WITHIN_CHARS:]}"
    for kind, phrases in PHRASES.items():
        for phrase in phrases:
            if phrase in near:
                found.setdefault(kind, {})[phrase] = None
    if _CJK.search(lowered) is not None:
        for kind, terms in CHINESE.items():
            for term in terms:
                if term in near:
                    found.setdefault(kind, {})[term] = None
    return {kind: tuple(words) for kind, words in found.items()}

"""Whether every transfer syntax can be decoded here, proven by decoding a tiny picture of each."""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset, uid
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate

from fracture_watch.errors import FractureWatchError
from fracture_watch.imaging import codecs
from fracture_watch.imaging.dicom import DicomImage
from fracture_watch.imaging.limits import Limits, Scope

# 8 x 8 pixels of 12 bit that rise from 0 to 4095 in steps of 65 (JPEG Baseline: the upper 8 bits), in base 85.
_STREAMS = {
    uid.RLELossless: (
        "0ssI2KmY&$U;qFB00000000000000000000000000000000000000000000000000000000000000000{Q&&|{Q~_1{RI65{RaI9"
        "{RsUD{R;gH{S5sL{SN&P2LM5W!vsZ!#|H>Wipva5j?V`WQIgXXRhHKW7+IRz99^E@2Owdh<0NIK=LaZhs_QImuI~phakBF?b+-"
        "2hIC;AJJbk|Z"
    ),
    uid.JPEGBaseline8Bit: (
        "|JeWF01!$>Nk#wx0RR9200961|JwjV00IF40RaI50RaI50s;a81OoyB0s;jD1Oo&H1qKEN1qKEN2MGuU2MGrT1_%oX2?`1d3JL}Y"
        "3k(Yi3<(Mf3je?W3kU!R00;pA5di<h03QGV0R;g80RaI400000000000RjUA1qKHQ2?`7U!~nGr00IF60|EpC1qB2I0004f0RjU6"
        "1Q7)iAu&M)6H#FYB5@QlfsvsIBSNvk6;jdgBr{@if(Z&17Z@2DB_<~*DJnEIHa9pqIzvQ7Mn_0VN>fx-"
        "R##YAT4Q8oW@l(=YIAgTc6WGrdV_?8hKGoWijtF*m6n&7nVO=bq@|{(sHv*5v$VCgx45~w!o$SH#>dFX%F@%+)z;V8+1laa<K*S$"
        "=jiF`@$&QZ_4fDp`TGCb00;pA002J#Z^Li+HoyH}{7^oh^6g*$*#"
    ),
    uid.JPEGExtended12Bit: (
        "|JeWF01!$>Nk#wx0RR9200961|JwjV00IF40RaI50RaI50s;a81OoyB0s;jD1Oo&H1qKEN1qKEN2MGuU2MGrT1_%oX2?`1d3JL}Y"
        "3k(Yi3<(Mf3je_X3k(1V00;pA5di<h02BZL00000000000000000002|HJ?s5C8xM0{{R30000000000000XPDmF+|WOD!700;pA"
        "002J#C9fvF;4C1<t$gYa|Je"
    ),
    uid.JPEGLossless: (
        "|JeWF01!$>Nk#wx0RR9200961|HA+a3;+lK2mt{R0RO}Q7XSeP0RaF20000000000000RG3Jm|+00;pA00sa6=l=kp&}cLo4F-"
        "dtgb@Tm5JV9KK{OD8Ac!Ief*^<{f)GRz1VIo)5d_de2!bGpA_#&Yng~G<L=gl*5JVF}2qFlAAc!Ief@mQGK@da{1VIo_|Je"
    ),
    uid.JPEGLosslessSV1: (
        "|JeWF01!$>Nk#wx0RR9200961|HA+a3;+lK2mt{R0RO}Q761VO0RR910000000000000LH4FB2y2mt{A0RRBc{(^#nf`WpBK?o=)"
        "C@3f>G!TM<f`WpAgFy%=C@3f>C^Qg)f`WpAf`dT_C@3f>C@3@#f`WpAf`WrV2q-8hC@3gD|Je"
    ),
    uid.JPEGLSLossless: (
        "|JeWN03cIPNk&Eh0ssI300008000083J?YX0003j0003j|L6b+00001|JeWc01FTR2mlBH0TBTI_y7$7|Nj6I07C&306_oR00;pA"
        "00000qzr+OG5&p!G5rK26o8+n%hlpRAcflLa=2Tqk^uv)T^!t;TodvJZ*FaDYidu36{Vq_nU#@xK#XimEDP()!UJ7gTU%OLU4Z}D"
    ),
    uid.JPEGLSNearLossless: (
        "|JeWN03cIPNk&Eh0ssI300008000083J?YX0003j0003j|L6b+00001|JeWc01FTR2mlBH0TBTI_y7$7|Nj6g0BZqE06_oR00;pA"
        "00;m8qsNOp^TqudiYT@te8sJcT94h`-P3&T&d#IuXJ%$TW@cq$=4E9ifdAP"
    ),
    uid.JPEG2000Lossless: (
        "|4;u>04V?f0000800008000000000000008000080000000000009dD0sm3}3;+NC0RR951ONg5TmS?>VE<$QB>(|Ka%Ew3Wn>^?"
        "c_2@4Wo}APMMofZWpZ<AZ*CwmE;TMR|BwI*000000A>II|C8V0R1z#gr<awnLk`v`Ki=pm#Yng`RubWP4w#XJPeaj|eiEC`JHvUs"
        "aY@F7H-chT6}LIgb?Qn$48SM=2SjDnBg|8V3tVT~>nW>*>ws|BY&IJWhQt5a"
    ),
    uid.JPEG2000: (
        "|4;u>04V?f0000800008000000000000008000080000000000009dD0sm3}4FLiG0RR951ONbt|6BkCLSO*@WB?@q0Yh?SVRU6="
        "AYyqSPjF>!N>D{dAa-SPb7^mGATlmBE;Rp;015yA0000+00IA#-"
        "+8DKEJCN3m9aw()+j&T=qbfWxHMK0;du_2k%dn~(U^V`o6bAKdA)H-#)UV6VpbKmInH(J|Je"
    ),
    uid.HTJ2KLossless: (
        "|4;u>04YEK0000800008000000000000008000080000000000009pH0sl|{2mk^A000XAQUDA90ssL31q1{@0smY86Cj9?kdTm&"
        "kdTm&kdTmwh=~7W02crOPjF>!N>E53R%LP^FfKASE;BCwkN^q*00000TmS+8lfVEbkM#uybN~PVzyK3K022UE{sISd0EqGfhjakI"
        "024p}6M!Nj0fKY@A}Nvp!&Csk04iVr6@UN$0Pw1D0(Afmbie@z{=ia!?6v^^*#"
    ),
    uid.HTJ2K: (
        "|4;u>04YEK0000800008000000000000008000080000000000009pH0sl|{2mk^A001TbQUDA90ssL31q1{@0RLP7BO;G<k429~"
        "j~9nrhg^p}f2x0~f5K=rXf<efU>aZ=Z@>R!02crOPjF>!N>E53R%LP^FfKASE;BCwkN^q*00000Q2+t|lfVEbQ~d=8bN~PVzyOv2"
        "1fci;2Xp||0f%$|zyeqRPUHYWbO3-2umDE10Kf#W0b1~&3*-P+2M;_r_(0^Q?P@mw|Je"
    ),
}
_STREAMS[uid.HTJ2KLosslessRPCL] = _STREAMS[uid.HTJ2KLossless]
_RISING = (np.arange(64, dtype=np.uint16) * 65).reshape(8, 8)
_LOSSY = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless, uid.JPEG2000, uid.HTJ2K)
_TOLERANCE = 3  # grey levels, for lossy pictures


@dataclass(frozen=True, slots=True)
class Probe:
    """One transfer syntax: what decodes it, and why that failed (``None``: it did not)."""

    syntax: str
    decoder: str
    problem: str | None


def probe() -> Iterator[Probe]:
    """Decode a tiny file of every transfer syntax, through everything that a real file goes through."""
    codecs.register()
    for syntax in codecs.SYNTAXES:
        yield Probe(syntax.name, codecs.library(syntax) or "numpy " + np.__version__, _problem(syntax))


def _problem(syntax: uid.UID) -> str | None:
    try:
        shown = DicomImage(sample(syntax), Limits(), Scope()).pixels(0)
    except FractureWatchError as error:
        return error.detail
    expected = np.floor(_RISING / 4095 * 255 + 0.5)
    worst = int(np.abs(shown - expected).max())
    allowed = _TOLERANCE if syntax in _LOSSY else 0
    return None if worst <= allowed else f"the picture is wrong by up to {worst} grey levels"


def sample(syntax: uid.UID) -> bytes:
    """A tiny file of one transfer syntax."""
    bits = 8 if syntax == uid.JPEGBaseline8Bit else 12
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = syntax
    header.SOPClassUID, header.SOPInstanceUID = uid.DigitalXRayImageStorageForPresentation, "2.25.1"
    header.Rows, header.Columns, header.SamplesPerPixel = 8, 8, 1
    header.PhotometricInterpretation, header.PixelRepresentation = "MONOCHROME2", 0
    header.BitsAllocated, header.BitsStored, header.HighBit = -(-bits // 8) * 8, bits, bits - 1
    header.WindowCenter, header.WindowWidth = 2 ** (bits - 1), 2**bits
    if syntax in _STREAMS:
        header.PixelData = encapsulate([base64.b85decode(_STREAMS[syntax])])
        header["PixelData"].VR = "OB"
    else:
        order = "<" if syntax.is_little_endian else ">"
        header.PixelData = _RISING.astype(f"{order}u2").tobytes()
        header["PixelData"].VR = "OW"
    buffer = io.BytesIO()
    header.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
